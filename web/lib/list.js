// A list of things to play: buttons that keep their place and their focus while their texts change.

import { create, setText } from "./dom.js";

/**
 * Shows `items` in `list`, each as `{ id, name, facts, live }`; `chosen` is the one that is playing.
 * `choose(item)` is called when one is pressed.
 */
export function showList(list, items, chosen, choose) {
  const known = new Map([...list.children].map((entry) => [entry.dataset.id, entry]));
  items.forEach((item, index) => {
    const entry = known.get(item.id) ?? newEntry(item.id);
    known.delete(item.id);
    const [button] = entry.children;
    const [dot, name, facts] = button.children;
    dot.classList.toggle("on", Boolean(item.live));
    dot.title = item.live ? "live" : "";
    setText(name, item.name);
    setText(facts, item.facts);
    button.setAttribute("aria-current", String(item.id === chosen));
    button.onclick = () => choose(item);
    if (list.children[index] !== entry) list.insertBefore(entry, list.children[index] ?? null);
  });
  for (const gone of known.values()) gone.remove();
}

/** Marks another item as the one that is playing. */
export function markChosen(list, id) {
  for (const entry of list.children) {
    entry.firstChild.setAttribute("aria-current", String(entry.dataset.id === id));
  }
}

function newEntry(id) {
  const entry = create("li");
  entry.dataset.id = id;
  const button = create("button");
  button.type = "button";
  button.append(create("span", "dot"), create("b"), create("small"));
  entry.append(button);
  return entry;
}
