/**
 * The metrics of one scrape, filled from a report and written by prom-client in Prometheus' text format, which escapes what stands
 * in labels. Every family is declared, also when it has no sample now, so that a scrape names all that there is. Invariant: a label's
 * value is never longer than {@link labelCharactersMax}.
 */
import { Registry, type Metric } from 'prom-client';

/** Names of disks may be paths of QEMU's object tree; nothing that tells two apart is longer. */
const labelCharactersMax = 128;

export type Labels = Readonly<Record<string, string>>;
/** Adds one sample; nothing for what is not known. */
export type AddSample = (labels: Labels, value: number | boolean | null | undefined) => void;
export interface HistogramFigures { readonly buckets: readonly { readonly le: number; readonly count: number }[]; readonly sum: number; readonly count: number }

interface Sample { readonly metricName?: string; readonly labels: Labels; readonly value: number }
interface Family { readonly name: string; readonly help: string; readonly type: 'gauge' | 'counter' | 'histogram'; readonly values: Sample[] }

export class MetricSheet {
  readonly #families: Family[] = [];

  gauge(name: string, help: string): AddSample {
    return this.#family(name, help, 'gauge');
  }

  /** Since the process, or what else the help names, began. */
  counter(name: string, help: string): AddSample {
    return this.#family(name, help, 'counter');
  }

  /** Buckets count what is below them too. */
  histogram(name: string, help: string): (labels: Labels, figures: HistogramFigures | undefined) => void {
    const family: Family = { name: `afterimage_${name}`, help, type: 'histogram', values: [] };
    this.#families.push(family);
    return (labels, figures) => {
      if (figures === undefined) return;
      const bounded = boundedLabels(labels);
      for (const { le, count } of figures.buckets) family.values.push({ metricName: `${family.name}_bucket`, labels: { ...bounded, le: String(le) }, value: count });
      family.values.push(
        { metricName: `${family.name}_bucket`, labels: { ...bounded, le: '+Inf' }, value: figures.count },
        { metricName: `${family.name}_sum`, labels: bounded, value: figures.sum }, { metricName: `${family.name}_count`, labels: bounded, value: figures.count },
      );
    };
  }

  /** In Prometheus' text format, version 0.0.4. */
  text(): Promise<string> {
    const registry = new Registry();
    // prom-client's own metrics count by themselves; these were counted, and only have the form that its registry reads.
    for (const family of this.#families) registry.registerMetric({ name: family.name, get: () => Promise.resolve(family) } as unknown as Metric);
    return registry.metrics();
  }

  #family(name: string, help: string, type: 'gauge' | 'counter'): AddSample {
    const family: Family = { name: `afterimage_${name}`, help, type, values: [] };
    this.#families.push(family);
    return (labels, value) => {
      if (value !== null && value !== undefined) family.values.push({ labels: boundedLabels(labels), value: Number(value) });
    };
  }
}

function boundedLabels(labels: Labels): Labels {
  return Object.fromEntries(Object.entries(labels).map(([key, value]) => [key, value.length > labelCharactersMax ? `${value.slice(0, labelCharactersMax - 1)}…` : value]));
}

/** Metrics are in seconds. */
export function seconds(ms: number | null | undefined): number | null {
  return ms === null || ms === undefined ? null : ms / 1000;
}
