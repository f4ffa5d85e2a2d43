// What pages do beyond htmx: streamed answers, the border that is dragged, and news of what others changed.
"use strict";

function fill(html, into) {
  into.innerHTML = html; // rendered by the server, where every value is escaped
  htmx.process(into);
}

function stream(section) {
  const panes = name => section.querySelector(`[data-pane=${name}]`);
  const verdict = section.querySelector("[data-verdict]");
  const source = new EventSource(section.dataset.stream);
  section.removeAttribute("data-stream");
  const end = () => { source.close(); section.dispatchEvent(new CustomEvent("answered", { bubbles: true })); };
  for (const name of ["live", "base"]) {
    source.addEventListener(name, event => { panes(name).append(JSON.parse(event.data)); });
  }
  source.addEventListener("done", event => {
    const told = JSON.parse(event.data);
    panes("live").textContent = told.live;
    panes("base").textContent = told.base;
    fill(told.html, verdict);
    end();
  });
  source.addEventListener("problem", event => { fill(JSON.parse(event.data).html, verdict); end(); });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED || !section.isConnected) return end();
    verdict.textContent = "The answer was cut off: ask again.";
    end();
  };
}

function share(logit) {
  const value = 1 / (1 + Math.exp(-logit));
  return value.toFixed(2).replace(/^0/, "");
}

function drag(slider) {
  const bound = Number(slider.dataset.bound);
  const learned = bound + Math.log(Number(slider.dataset.widen)); // before anybody moved it
  const most = Math.log(10);
  const line = document.getElementById("border-line");
  const out = document.getElementById("border-out");
  const move = () => {
    const at = Math.min(learned + most, Math.max(learned - most, Number(slider.value)));
    slider.value = at;
    const x = `${((at + 6) / 12) * 100}%`;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    out.value = share(at);
    slider.setAttribute("aria-valuetext", share(at));
    const moved = Math.abs(at - bound) > 0.04;
    for (const mark of document.querySelectorAll(".qrow[data-value], .dot[data-value]")) {
      mark.dataset.was ??= mark.classList.contains("reached") || mark.classList.contains("in") ? "1" : "";
      const value = Number(mark.dataset.value);
      // between the old border and the new one the border decides; elsewhere what was found stands, as names and
      // counter-examples have a say too
      const between = (value - bound) * (value - at) <= 0;
      // "should not" makes a counter-example of the row, which no border reaches
      const kept = mark.querySelector("input[name^='a-']:checked, select[name^='a-']")?.value === "keep";
      const reached = moved && between && !kept ? value >= at : mark.dataset.was === "1";
      mark.classList.toggle(mark.matches(".dot") ? "in" : "reached", reached);
      const word = mark.querySelector(".verdict");
      if (word) word.textContent = reached ? "changes" : "stays";
    }
  };
  slider.addEventListener("input", move);
  slider.form.addEventListener("change", event => event.target.name.startsWith("a-") && move());
  if (Math.abs(Number(slider.value) - bound) > 0.04) move(); // dragged before the page was shown again
}

function listen(mark) {
  const news = document.getElementById("news");
  let source = null;
  const open = () => {
    if (source || document.hidden) return; // a hidden page holds no connection: browsers have six for a server
    source = new EventSource(`${mark.dataset.changes}?since=${mark.dataset.revision}`);
    source.addEventListener("change", event => {
      const told = JSON.parse(event.data);
      mark.dataset.revision = told.revision;
      mark.textContent = `revision ${told.revision}`;
      news.replaceChildren(`Revision ${told.revision}: ${told.text}. `);
      const again = document.createElement("a");
      again.href = location.href;
      again.textContent = "Show it";
      news.append(again);
      news.hidden = false;
      document.body.dispatchEvent(new CustomEvent("changed"));
    });
  };
  const close = () => { source?.close(); source = null; };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", event => { if (event.persisted) location.reload(); });
  open();
}

htmx.onLoad(root => {
  const all = root.matches?.("[data-stream]") ? [root] : root.querySelectorAll("[data-stream]");
  for (const section of all) stream(section);
});
document.addEventListener("DOMContentLoaded", () => {
  const slider = document.getElementById("border");
  if (slider) drag(slider);
  const mark = document.querySelector("[data-changes]");
  if (mark) listen(mark);
});
// htmx shows no answer that is an error unless it is told to: problems are to be read
document.addEventListener("htmx:beforeSwap", event => {
  if (event.detail.xhr.status >= 400) event.detail.shouldSwap = true;
});
document.addEventListener("input", event => {
  const out = event.target.dataset?.out;
  if (out) document.getElementById(out).value = event.target.value;
});
