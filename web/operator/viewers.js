// The operator's part of the status page on the admin listener: the list of viewers, and buttons that end one
// of them or a publisher. The token is kept in this page only.

import { at, bytesText, create, durationText, setText } from "../lib/dom.js";
import { fill } from "../lib/table.js";

const REFRESH_MS = 2000;
const TIMEOUT_MS = 5000;

const SECTION = `
  <h2 id="viewers-title">Viewers</h2>
  <form id="token-form" class="controls" hidden>
    <label class="key"><span>Admin token</span>
      <input type="password" id="token" autocomplete="current-password" required></label>
    <button type="submit">Show viewers</button>
  </form>
  <div id="viewers-box" hidden>
    <form id="filter" class="controls">
      <label class="key"><span>Of this stream only</span>
        <input id="only" autocomplete="off" spellcheck="false" autocapitalize="none" placeholder="live/stream"></label>
    </form>
    <div class="scroll"><table>
      <thead><tr>
        <th scope="col">Kick</th><th scope="col">Address</th><th scope="col">Stream</th><th scope="col">Protocol</th>
        <th scope="col">Role</th><th scope="col">For</th><th scope="col">Behind</th>
      </tr></thead>
      <tbody id="viewers"></tbody>
    </table></div>
  </div>
  <p id="viewers-note" class="hint" role="status"></p>
  <dialog id="confirm" aria-labelledby="confirm-text"><form method="dialog">
    <p id="confirm-text"></p>
    <p class="buttons"><button value="yes" id="confirm-yes">Kick</button><button value="" autofocus>Cancel</button></p>
  </form></dialog>`;

let access = "open";
let token = "";
let timer = 0;

const may = () => access === "open" || (access === "token" && token !== "");
const note = (text) => setText(at("viewers-note"), text);

/** Sends a request to the API. If the answer says that the token is wrong, the operator is asked for it again. */
async function call(path, method = "GET") {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const answer = await fetch(path, { method, headers, cache: "no-store", signal });
  if (answer.status === 401) {
    token = "";
    showAccess("This is not the token of this server.");
  }
  return answer;
}

function showAccess(text) {
  at("token-form").hidden = access !== "token" || token !== "";
  at("viewers-box").hidden = !may();
  note(text);
}

async function refresh() {
  clearTimeout(timer);
  if (may()) {
    try {
      const answer = await call(`/api/v1/viewers?stream=${encodeURIComponent(at("only").value.trim())}`);
      if (answer.ok) show(await answer.json());
      else if (answer.status !== 401) note((await answer.text()).trim());
    } catch {
      note("The server does not answer.");
    }
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, document.hidden ? 5 * REFRESH_MS : REFRESH_MS);
}

function show({ total, viewers }) {
  fill(at("viewers"), viewers.map((viewer) => {
    const behind = viewer.behind_bytes == null ? "nothing yet" : bytesText(viewer.behind_bytes);
    const kick = viewer.forward ? "the server's own forward" : {
      button: "Kick",
      label: `Kick ${viewer.peer} off ${viewer.stream}`,
      press: () => end(`Kick ${viewer.peer} off ${viewer.stream}? It may come back.`, `viewers/${viewer.id}`),
    };
    return { id: viewer.id, cells: [kick, viewer.peer, viewer.stream, viewer.protocol, viewer.role,
      durationText(viewer.seconds * 1000), behind] };
  }));
  const first = total > viewers.length ? `; ${viewers.length} of them are listed` : "";
  setText(at("viewers-title"), `Viewers: ${total}${first}`);
}

/** Ends what `path` names, if the operator confirms it. */
async function end(question, path) {
  if (!await confirmed(question)) return;
  try {
    const answer = await call(`/api/v1/${path}`, "DELETE");
    if (answer.status !== 401) note(answer.ok ? "Done." : (await answer.text()).trim());
  } catch {
    note("The server does not answer.");
  }
  refresh();
}

function confirmed(question) {
  const dialog = at("confirm");
  setText(at("confirm-text"), question);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** The cell with the button that ends the publisher of a stream. */
export function publisherCell({ key, live }) {
  return {
    button: "Kick",
    label: `Kick the publisher of ${key}`,
    disabled: !may() || !live,
    press: () => {
      const path = key.split("/").map(encodeURIComponent).join("/");
      end(`Kick the publisher of ${key}? Its name is then free; an encoder may come back by itself.`, `streams/${path}`);
    },
  };
}

/** Shows the viewers below the streams. `needed`: what an operator has to present: "open", "token" or "off". */
export function start(needed) {
  access = needed;
  const section = create("section");
  section.setAttribute("aria-labelledby", "viewers-title");
  section.innerHTML = SECTION;
  at("streams").closest("section").after(section);
  const head = create("th", "", "Publisher");
  head.scope = "col";
  at("streams").closest("table").tHead.rows[0].append(head);
  at("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token = at("token").value.trim();
    at("token").value = "";
    showAccess("");
    refresh();
  });
  at("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    refresh();
  });
  const off = "Viewers are listed and kicked here when admin_token is set: this listener is not on a loopback address.";
  showAccess(access === "off" ? off : "");
  refresh();
}
