/** Requests to the server extension, `tuttilab/…` on this server: the only address that the panel ever calls. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

/** The service refused a request; the message is one sentence. `type` is a stable word of the API's, such as `not-found`. */
export class Refusal extends Error {
  constructor(
    readonly type: string,
    readonly status: number,
    message: string
  ) {
    super(message);
    this.name = 'Refusal';
  }
}

/** What the model needs of the server; a test passes its own. */
export interface IRequests {
  get<T>(path: string, query?: Record<string, string>): Promise<T>;
  post<T>(path: string): Promise<T>;
  remove(path: string): Promise<void>;
}

const JSON_TYPE = { 'Content-Type': 'application/json' };

/**
 * Uses Lab's own connection settings, which carry its sign-in and its cross-site token. Lab's cache key is left out of the query:
 * answers say `no-store`, and the server refuses unknown keys.
 */
export class Requests implements IRequests {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  get<T>(path: string, query: Record<string, string> = {}): Promise<T> {
    return this._send<T>(path + URLExt.objectToQueryString(query), { method: 'GET', cache: 'default' });
  }

  post<T>(path: string): Promise<T> {
    return this._send<T>(path, { method: 'POST', body: '{}', cache: 'default', headers: JSON_TYPE });
  }

  async remove(path: string): Promise<void> {
    await this._send<unknown>(path, { method: 'DELETE', cache: 'default', headers: JSON_TYPE });
  }

  private async _send<T>(path: string, init: RequestInit): Promise<T> {
    const url = URLExt.join(this._settings.baseUrl, 'tuttilab', path);
    const response = await ServerConnection.makeRequest(url, init, this._settings);
    const text = await response.text();
    if (!response.ok) {
      throw refusalOf(response.status, text);
    }
    return JSON.parse(text) as T;
  }
}

/** Turns any error answer into a sentence, also one that is no problem document, such as a proxy's. */
export function refusalOf(status: number, text: string): Refusal {
  try {
    const problem = JSON.parse(text) as { type?: unknown; message?: unknown };
    if (typeof problem.message === 'string') {
      return new Refusal(typeof problem.type === 'string' ? problem.type : 'error', status, problem.message);
    }
  } catch {
    // Not JSON.
  }
  return new Refusal('error', status, `The server answered ${status}.`);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
