/** A uPlot chart as a component: made once, given its data as they change, sized as its place is. It draws nothing itself. */
import { useEffect, useRef } from 'preact/hooks';
import uPlot, { type AlignedData, type Options } from 'uplot';

interface PlotProps {
  readonly options: Omit<Options, 'width' | 'height'>;
  readonly data: AlignedData;
  readonly heightPx: number;
  /** What it shows, for who does not see it. */
  readonly label: string;
  readonly onReady?: (plot: uPlot) => void;
}

export function Plot({ options, data, heightPx, label, onReady }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  useEffect(() => {
    const element = place.current!;
    const made = new uPlot({ ...options, width: Math.max(200, element.clientWidth), height: heightPx }, data, element);
    plot.current = made;
    onReady?.(made);
    const sizes = new ResizeObserver(() => { if (element.clientWidth > 0) made.setSize({ width: element.clientWidth, height: heightPx }); });
    sizes.observe(element);
    return () => { sizes.disconnect(); made.destroy(); plot.current = null; };
  }, [options, heightPx]);
  useEffect(() => { plot.current?.setData(data); }, [data]);
  return <div ref={place} class="plot" role="img" aria-label={label} style={{ height: `${heightPx}px` }} />;
}
