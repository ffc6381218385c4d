// Numbers the lines of the editor, and marks the one that the check found wrong. The check says all of it in words too.
(function () {
  "use strict";

  var text = document.querySelector(".numbered textarea"), verdict = document.getElementById("verdict");
  if (!text) { return; }
  var gutter = document.createElement("ol");
  gutter.className = "gutter";
  gutter.setAttribute("aria-hidden", "true");
  text.before(gutter);

  function number() {
    var wanted = text.value.split("\n").length;
    while (gutter.children.length > wanted) { gutter.lastChild.remove(); }
    while (gutter.children.length < wanted) {
      gutter.append(document.createElement("li"));
      gutter.lastChild.textContent = gutter.children.length;
    }
    gutter.scrollTop = text.scrollTop;
  }

  function mark() {
    var told = verdict.querySelector("[data-line]");
    var line = told ? Number(told.dataset.line) : 0;
    Array.from(gutter.children).forEach(function (each, at) { each.classList.toggle("is-wrong", at + 1 === line); });
    if (told && told.classList.contains("note-danger")) { text.setAttribute("aria-invalid", "true"); }
    else { text.removeAttribute("aria-invalid"); }
  }

  text.addEventListener("input", number);
  text.addEventListener("scroll", function () { gutter.scrollTop = text.scrollTop; });
  // The tab key stays the way out of the field, for those who use no mouse; Enter keeps the indentation.
  text.addEventListener("keydown", function (event) {
    if (event.key !== "Enter" || event.isComposing || event.ctrlKey || event.metaKey) { return; }
    var line = text.value.slice(0, text.selectionStart).split("\n").pop();
    // As if it were typed, so that undo works; where that is refused, the browser does what Enter does.
    if (document.execCommand("insertText", false, "\n" + line.match(/^ */)[0])) { event.preventDefault(); }
  });
  document.addEventListener("htmx:afterSettle", function (event) {
    if (event.target === verdict) { mark(); }
  });
  number();
  mark();
})();
