/** Elements of the page. */

/** The element with an id. */
export const $ = (id) => document.getElementById(id);

/** A new element with a class and content. */
export function element(name, className = "", ...content) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...content);
  return made;
}
