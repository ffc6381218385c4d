// The live page: pausing, and keeping the list short. Lines come as markup from our own server, escaped there.
(function () {
  "use strict";

  var MOST_LINES = 200;
  var MOST_HELD = 200; // chunks kept while paused; more are left out, and counted by the server's own figure
  var button = document.getElementById("pause");
  var isPaused = false;
  var held = [];
  var heldLines = 0;
  var name = document.getElementById("pause-name");

  function lines() { return document.getElementById("lines"); }

  function tidy() {
    var list = lines(), seen = new Set();
    Array.from(list.children).forEach(function (line, index) {
      if (index >= MOST_LINES || seen.has(line.id)) { line.remove(); } else { seen.add(line.id); }
    });
  }

  function show() {
    button.setAttribute("aria-pressed", String(isPaused));
    button.classList.toggle("is-paused", isPaused);
    name.textContent = isPaused
      ? button.dataset.resume + (heldLines ? " · " + button.dataset.held.replace("{n}", heldLines) : "")
      : button.dataset.pause;
  }

  function pause(wanted) {
    if (isPaused === wanted) { return; }
    isPaused = wanted;
    if (!isPaused) {
      held.forEach(function (markup) { htmx.swap(lines(), markup, { swapStyle: "afterbegin" }); });
      held = [];
      heldLines = 0;
      tidy();
    }
    show();
  }

  button.hidden = false;
  button.addEventListener("click", function () { pause(!isPaused); });

  // Whoever opens a line wants to read it: what comes meanwhile waits.
  document.addEventListener("toggle", function (event) {
    if (event.target.matches(".lines details") && event.target.open) { pause(true); }
  }, true);

  document.addEventListener("htmx:sseBeforeMessage", function (event) {
    if (event.target.id !== "lines" || !isPaused) { return; }
    event.preventDefault();
    held.push(event.detail.data);
    heldLines += event.detail.data.split("<li ").length - 1;
    if (held.length > MOST_HELD) { held.shift(); }
    show();
  });

  document.addEventListener("htmx:sseMessage", function (event) {
    if (event.target.id === "lines") { tidy(); }
  });
})();
