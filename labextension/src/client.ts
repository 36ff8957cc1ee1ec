/** Requests to the server extension, `tuttilab/…` on this server: the only address that the panel ever calls. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

/** The service said no, in one sentence. `type` is a stable word of the API's, such as `not-found`. */
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

/** What the model needs of the server; a test gives its own. */
export interface IRequests {
  get<T>(path: string, query?: Record<string, string>): Promise<T>;
  post<T>(path: string): Promise<T>;
}

const JSON_TYPE = { 'Content-Type': 'application/json' };

/**
 * With Lab's own settings, so its sign-in and its cross-site token go along. Not with its cache key in the query: the answers say
 * `no-store`, and the server takes no key that it does not know.
 */
export class Requests implements IRequests {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  get<T>(path: string, query: Record<string, string> = {}): Promise<T> {
    return this._send<T>(path + URLExt.objectToQueryString(query), { method: 'GET', cache: 'default' });
  }

  post<T>(path: string): Promise<T> {
    return this._send<T>(path, { method: 'POST', body: '{}', cache: 'default', headers: JSON_TYPE });
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

/** An answer that is no problem document, a proxy's say, still becomes a sentence. */
export function refusalOf(status: number, text: string): Refusal {
  try {
    const told = JSON.parse(text) as { type?: unknown; message?: unknown };
    if (typeof told.message === 'string') {
      return new Refusal(typeof told.type === 'string' ? told.type : 'error', status, told.message);
    }
  } catch {
    // Not JSON.
  }
  return new Refusal('error', status, `The server answered ${status}.`);
}
