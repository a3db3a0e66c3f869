// The page is whole without this. With it, parts that changed are fetched and exchanged.
"use strict";
(() => {
  const sign = document.getElementById("live");
  const word = sign.querySelector(".word");
  let busy = false;
  let again = false;

  const say = (state, text) => {
    sign.hidden = false;
    sign.dataset.state = state;
    if (word.textContent !== text) word.textContent = text;
  };

  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const parts = [...document.querySelectorAll("[data-live]")];
      const same = (one) => fresh.getElementById(one.id);
      if (answer.ok && parts.length === fresh.querySelectorAll("[data-live]").length && parts.every(same)) {
        for (const part of parts) exchange(part, same(part));
      } else if (answer.ok) {
        // Another set of parts, as when the first device joins: the whole content.
        document.getElementById("content").replaceWith(fresh.getElementById("content"));
      }
    } catch {
      // The stream says when the hub is back.
    }
    busy = false;
    if (again) { again = false; refresh(); }
  };

  const exchange = (part, fresh) => {
    if (part.innerHTML === fresh.innerHTML || part.contains(document.activeElement) && document.activeElement.matches("input, select")) return;
    const open = [...part.querySelectorAll("details")].map((one) => one.open);
    const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    part.replaceChildren(...fresh.childNodes);
    part.className = fresh.className;
    [...part.querySelectorAll("details")].forEach((one, index) => { one.open = open[index] || false; });
    if (focused) part.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  };

  const stream = new EventSource("/live");
  let met = false;
  stream.addEventListener("hello", () => { say("on", "live"); if (met) refresh(); met = true; });
  stream.addEventListener("changed", refresh);
  stream.addEventListener("error", () => say("off", "reconnecting"));
  // "3 min ago" grows old by itself.
  setInterval(() => { if (!document.hidden) refresh(); }, 30000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
})();
