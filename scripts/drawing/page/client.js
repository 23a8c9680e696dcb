/** Requests to the server of this page. */

const TOKEN = new URLSearchParams(location.search).get("token") ?? "";
const BUSY = 429; // status of an answer that is worth another try
const PATIENCE = 15_000; // milliseconds that an answer may take

/** The server gives no answer. */
export class Lost extends Error {}

/** The server refuses a request; the message says why. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Ask the server.
 *
 * @param {string} path such as "api/read"
 * @param {Blob | object} [body] bytes, or what is sent as JSON; without one the request is a GET
 * @returns {Promise<object>} the answer
 */
export async function ask(path, body) {
  const options = { headers: { "X-Token": TOKEN }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) };
  if (body !== undefined) {
    const bytes = body instanceof Blob;
    options.method = "POST";
    options.headers["Content-Type"] = bytes ? body.type || "application/octet-stream" : "application/json";
    options.body = bytes ? body : JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
    if (response.status === BUSY) {
      await new Promise((resolve) => setTimeout(resolve, 300));
      response = await fetch(path, options);
    }
  } catch {
    throw new Lost("The server does not answer. If it was stopped, start scripts/draw.py again and open its new address.");
  }
  const answer = await response.json().catch(() => ({ error: `the server answered with status ${response.status}` }));
  if (!response.ok) throw new Refused(answer.error, response.status);
  return answer;
}

/** Questions of one kind: one is under way at a time; of those that come meanwhile, the last is asked. */
export class Latest {
  #waiting = null;
  #running = false;
  #dropped = 0;

  /**
   * @param {(question: any) => Promise<any>} answer
   * @param {(answer: any, question: any) => void} show
   * @param {(error: Error) => void} fail
   * @param {HTMLElement} place where the answer is shown; it is marked as busy until then
   */
  constructor(answer, show, fail, place) {
    Object.assign(this, { answer, show, fail, place });
  }

  /** Ask as soon as the question under way is answered. */
  async put(question) {
    this.#waiting = { question };
    if (this.#running) return;
    this.#running = true;
    this.place.ariaBusy = true;
    while (this.#waiting) {
      const { question: asked } = this.#waiting;
      const dropped = this.#dropped;
      this.#waiting = null;
      try {
        const answer = await this.answer(asked);
        if (dropped === this.#dropped) this.show(answer, asked);
      } catch (error) {
        if (dropped === this.#dropped) this.fail(error);
      }
    }
    this.#running = false;
    this.place.ariaBusy = false;
  }

  /** Forget the question that waits, and the answer that is under way. */
  drop() {
    this.#waiting = null;
    this.#dropped += 1;
  }
}
