// Builds elements, and brings what a page shows up to date without drawing it anew.
//
// Texts only ever become text nodes: nothing here parses HTML. Pages are built whole from their state at every change, and
// `update` carries over what differs. So focus, scrolling, open details and charts stay. Elements have no listeners of
// their own: a page listens once, and `data-do` names what a control does.

/** Makes an element with attributes; children are elements, texts, and lists of both. Null and false are left out. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (attribute === "share") element.style.setProperty("--share", value);
    else element.setAttribute(attribute, value === true ? "" : value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child);
  }
}

/** Shows what others wrote: in its own direction, and broken wherever it must be. */
export const foreign = (text, attributes = {}) =>
  h("bdi", { ...attributes, class: `foreign ${attributes.class ?? ""}`.trim() }, String(text));

const keyOf = (node) => node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
const isAlike = (shown, wanted) => shown.nodeName === wanted.nodeName && keyOf(shown) === keyOf(wanted);

/** Makes the children of an element like those that are wanted, and changes only what differs. */
export function update(parent, ...wanted) {
  const next = document.createDocumentFragment();
  add(next, wanted);
  updateChildren(parent, next);
}

function updateChildren(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.children) if (keyOf(child) !== null) keyed.set(keyOf(child), child);
  let at = parent.firstChild;
  for (const node of [...wanted.childNodes]) {
    const key = keyOf(node);
    const known = key === null ? null : keyed.get(key);
    if (known && known !== at && isAlike(known, node)) parent.insertBefore(known, at);
    const shown = known && isAlike(known, node) ? known : at;
    if (shown && isAlike(shown, node)) {
      at = shown.nextSibling;
      updateNode(shown, node);
    } else {
      parent.insertBefore(node, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function updateNode(shown, wanted) {
  if (shown.nodeType !== Node.ELEMENT_NODE) {
    if (shown.data !== wanted.data) shown.data = wanted.data;
    return;
  }
  for (const { name } of [...shown.attributes]) {
    // Whether details are open is the reader's choice.
    if (!wanted.hasAttribute(name) && name !== "open" && name !== "style") shown.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (name !== "style" && name !== "open" && shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  const share = wanted.style.getPropertyValue("--share");
  if (shown.style.getPropertyValue("--share") !== share) shown.style.setProperty("--share", share);
  if (shown instanceof HTMLOptionElement) shown.selected = wanted.selected;
  // The inside of such an element belongs to another module.
  if (!shown.hasAttribute("data-own")) updateChildren(shown, wanted);
}
