/** What routes may use beside the role's operations: what the API itself keeps. */
import type { OperatorTokens } from './operator-tokens.ts';
import type { Tickets } from './tickets.ts';

export interface ApiServices {
  readonly role: 'source' | 'target';
  /** The release. */
  readonly version: string;
  readonly tokens: OperatorTokens;
  readonly tickets: Tickets;
  /** The OpenAPI document of this role. */
  document(): unknown;
}
