// What all pages share: the header with the links to the others, and the frame of the pages that play
// recordings, which differ in a few texts.

import { create } from "./dom.js";

const PAGES = [
  ["index.html", "Live"],
  ["play.html", "HLS"],
  ["play_merge.html", "fMP4"],
  ["mp4.html", "MP4"],
  ["video.html", "FLV"],
  ["push.html", "Go live"],
  ["status.html", "Status"],
];

const here = location.pathname.split("/").pop();

/** Puts the header before the page's content; `home`: the page that an empty path means. */
export function header(home = "index.html") {
  const head = create("header");
  const nav = create("nav");
  nav.setAttribute("aria-label", "Pages");
  nav.append(...PAGES.map(([href, name]) => {
    const link = create("a", "", name);
    link.href = href;
    if (href === (here || home)) link.setAttribute("aria-current", "page");
    return link;
  }));
  const server = create("p", "", "connecting …");
  server.id = "server";
  server.setAttribute("role", "status");
  head.append(create("h1", "", "uringcast"), nav, server);
  document.body.prepend(head);
}

/** The other pages are below `base` or, without one, not available. */
export function leadTo(base) {
  for (const link of document.querySelectorAll("header nav a:not([aria-current]), .hint a")) {
    link.hidden = !base;
    if (base) link.href = new URL(link.getAttribute("href"), base).href;
  }
}

/** A page that plays recordings. All texts are the page's own, as HTML. */
const PLAYER = ({ noun, title, nothing, controls = "", readout = [], hint = "", download = "" }) => `
  <section class="player" aria-label="Player">
    <div class="screen">
      <video id="video" muted playsinline controls></video>
      <div id="notice" class="notice" role="status" hidden></div>
    </div>
    <form id="controls" class="controls">
      <label class="key">
        <span>${noun}</span>
        <input id="key" name="stream" autocomplete="off" spellcheck="false" autocapitalize="none"
               placeholder="live/stream">
      </label>
      ${controls}
      <span class="buttons"><button type="submit" id="play">Play</button></span>
    </form>
    <dl class="readout" aria-label="Playback figures">
      <div><dt>State</dt><dd id="state">idle</dd></div>
      ${readout.map(([id, name]) => `<div><dt>${name}</dt><dd id="${id}">–</dd></div>`).join("")}
      <div><dt>Buffered</dt><dd id="latency">–</dd></div>
      <div><dt>Dropped frames</dt><dd id="dropped">–</dd></div>
    </dl>
    ${hint}
  </section>
  <section class="side" aria-labelledby="list-title">
    <h2 id="list-title">${title}</h2>
    <ul id="recordings" class="streams"></ul>
    <p id="partly" class="hint" hidden>There are more: type the name of what is not listed.</p>
    <p id="nothing" class="howto" hidden>${nothing}</p>
    <h2>Play it elsewhere</h2>
    <pre tabindex="0"><code id="elsewhere">–</code></pre>
    ${download}
  </section>`;

/**
 * Builds the frame of a page that plays recordings. `noun`: what the field is for; `title`: of the list;
 * `nothing`: the text for an empty list. Optional: `controls` before the button, figures as `[id, name]` in
 * `readout`, a `hint` below them, a `download`.
 */
export function playerFrame(words) {
  const main = create("main");
  main.innerHTML = PLAYER(words);
  document.body.prepend(main);
  header();
}

/** The link to the file that is played, for `download`. */
export const DOWNLOAD = '<p class="links"><a id="download" href="#" download>Download the file</a></p>';
