/* Keeps the part #massmigration-live of a page up to date: fetches it again and changes only what differs, so that
   focus, selection, scrolling and opened details stay as they are. */
"use strict";

(() => {
  const live = document.getElementById("massmigration-live");
  if (!live) {
    return;
  }
  const note = document.getElementById("massmigration-note");
  const pause = Number(live.dataset.refreshSeconds) * 1000;
  let timer = null;

  function say(text) {
    if (note.textContent !== text) {
      note.textContent = text;
    }
    note.hidden = !text;
  }

  function isSame(node, fresh) {
    return node.nodeType === fresh.nodeType && node.nodeName === fresh.nodeName && node.id === fresh.id;
  }

  function syncAttributes(element, fresh) {
    for (const { name } of [...element.attributes]) {
      if (!fresh.hasAttribute(name) && !(element.nodeName === "DETAILS" && name === "open")) {
        element.removeAttribute(name);
      }
    }
    for (const { name, value } of fresh.attributes) {
      if (element.getAttribute(name) !== value) {
        element.setAttribute(name, value);
      }
    }
  }

  function syncChildren(parent, freshParent) {
    let node = parent.firstChild;
    for (const fresh of [...freshParent.childNodes]) {
      if (node && isSame(node, fresh)) {
        sync(node, fresh);
        node = node.nextSibling;
        continue;
      }
      let later = node;
      while (later && !isSame(later, fresh)) {
        later = later.nextSibling;
      }
      if (later && fresh.id) {
        while (node !== later) { /* what was before it is gone */
          const gone = node;
          node = node.nextSibling;
          gone.remove();
        }
        sync(node, fresh);
        node = node.nextSibling;
      } else {
        parent.insertBefore(document.importNode(fresh, true), node);
      }
    }
    while (node) {
      const gone = node;
      node = node.nextSibling;
      gone.remove();
    }
  }

  function sync(node, fresh) {
    if (node.nodeType !== Node.ELEMENT_NODE) {
      if (node.nodeValue !== fresh.nodeValue) {
        node.nodeValue = fresh.nodeValue;
      }
      return;
    }
    syncAttributes(node, fresh);
    syncChildren(node, fresh);
  }

  function keepPlace(row) {
    /* The button that had the focus is gone: stay near, but never on another button, which a key might press. */
    const link = row && row.isConnected && row.querySelector("th a");
    const next = link || live;
    if (next === live) {
      live.tabIndex = -1;
    }
    next.focus({ preventScroll: true });
  }

  async function refresh() {
    const response = await fetch(live.dataset.refreshUrl, { credentials: "same-origin", redirect: "manual" });
    if (response.type === "opaqueredirect") {
      say("You are logged out. Reload the page to log in again.");
      return;
    }
    if (!response.ok) {
      throw new Error(`the server answers ${response.status}`);
    }
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const focused = live.contains(document.activeElement) ? document.activeElement : null;
    const row = focused && focused.closest("tr[id]");
    syncChildren(live, page.body);
    if (focused && !focused.isConnected) {
      keepPlace(row);
    }
    say("");
  }

  async function tick() {
    timer = null;
    if (!document.hidden) {
      try {
        await refresh();
      } catch (error) {
        say(`This page could not be refreshed (${error.message}). Trying again.`);
      }
    }
    timer = setTimeout(tick, pause);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && timer !== null) {
      clearTimeout(timer);
      tick();
    }
  });
  timer = setTimeout(tick, pause);
})();
