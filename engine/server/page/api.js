// The server's API: models, transcriptions, and the numbers of its engines. Addresses are relative to the page's, so
// that a proxy may serve it under a prefix.

export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

// The key lives as long as the tab. `askForKey` is set by the page; it resolves to false where none is given.
let askForKey = async () => false;
let asking = null;

export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const key = () => sessionStorage.getItem("key");
const headers = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

// Models that transcribe: {id, timestamp_granularities}.
export async function models() {
  const response = await request("v1/models");
  const { data } = await response.json();
  return data.filter(({ task }) => task === "transcription");
}

// Events of a transcription while it is decoded: {type: "transcript.text.delta", delta}, and one
// {type: "transcript.text.done", text} at the end.
export async function* stream(file, model, signal) {
  const response = await post(file, { model, stream: "true" }, signal);
  for await (const event of events(response.body)) {
    if (event.error) throw new ApiError(event.error.message ?? event.error);
    yield event;
    if (event.type === "transcript.text.done") return;
  }
  throw new ApiError("The server ended its answer early.");
}

// A transcription in one of the server's formats, as text; `granularities` are those of verbose JSON.
export async function transcription(file, model, format, signal, granularities = []) {
  const response = await post(file, { model, response_format: format }, signal, granularities);
  return response.text();
}

// Health and metrics ask for no key and fail quietly, as a server may keep them closed: null.
export async function health() {
  return (await look("health"))?.json() ?? null;
}

export async function metrics() {
  return (await look("metrics"))?.text() ?? null;
}

async function look(path) {
  const response = await fetch(path, { headers: headers() });
  return [401, 403, 404].includes(response.status) ? null : response;
}

function post(file, fields, signal, granularities = []) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  for (const granularity of granularities) body.append("timestamp_granularities[]", granularity);
  body.append("file", file, file.name);
  return request("v1/audio/transcriptions", { method: "POST", body, signal });
}

async function request(path, options = {}) {
  for (;;) {
    const used = key();
    const response = await fetch(path, { ...options, headers: headers() }).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer. Check that it runs, then try again.");
    });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401) throw error;
    // Of several requests at once only the first asks; the others use its key.
    if (key() !== used) continue;
    asking ??= askForKey(error.message).finally(() => (asking = null));
    if (!(await asking)) throw error;
  }
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  try {
    return new ApiError(JSON.parse(text).error.message, response.status);
  } catch {
    return new ApiError(`The server answered ${response.status} ${response.statusText}.`, response.status);
  }
}

// JSON of each server-sent event in a body.
async function* events(body) {
  let text = "";
  for await (const piece of pieces(body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (text + piece).split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      const data = lines.map((line) => line.slice(5)).join("\n").trim();
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

// A stream's pieces; Safari has no asynchronous iteration over streams.
async function* pieces(stream) {
  const reader = stream.getReader();
  try {
    for (let read; !(read = await reader.read()).done; ) yield read.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}
