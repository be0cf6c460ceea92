// The server's lists: streams that are live, and recordings.

const REFRESH_MS = 2000;
const TIMEOUT_MS = 5000;

/** A stream's name, as the server takes it. */
export const KEY = /^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)+$/;
export const KEY_HELP = "Use app/name, for example live/demo: letters, digits, “.”, “_”, “-”.";

export async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.json();
}

/**
 * Requests `paths` repeatedly. `found` gets the answers, `lost` the reason if there are none. A hidden page
 * asks less often.
 */
export async function follow(paths, found, lost) {
  for (;;) {
    try {
      found(...await Promise.all(paths.map(ask)));
    } catch (error) {
      const why = error.name === "TimeoutError" ? "no answer within 5 s" : error.message;
      lost(`server not reachable (${why}); trying again. Is it running?`);
    }
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? 5 * REFRESH_MS : REFRESH_MS));
  }
}

/** The folder of a take's files, below `/hls/`, `/mp4/` and `/flv/`. */
export function pathOf({ key, take }) {
  return take ? `${key}@${take}` : key;
}

/** `20261121T091545Z`, or that with a count, in a readable form. */
export function takeText(take) {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z/.exec(take);
  if (!parts) return take;
  const [, year, month, day, hour, minute, second] = parts;
  return new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`).toLocaleString();
}
