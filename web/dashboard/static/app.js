// What every page does beyond plain HTML. Nothing here writes markup: texts come from the page, as text.
(function () {
  "use strict";

  function toast(text) {
    var place = document.getElementById("toast");
    place.textContent = text;
    window.setTimeout(function () { place.textContent = ""; }, 2500);
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy], [data-copy-text]");
    if (button) {
      var code = button.parentElement.querySelector("code");
      var text = button.dataset.copyText || (code ? code.textContent : "");
      navigator.clipboard.writeText(text).then(function () {
        toast(document.getElementById("toast").dataset.copied);
      }, function () {
        if (code) { window.getSelection().selectAllChildren(code); }
      });
      return;
    }
    // A click elsewhere closes what hangs open.
    document.querySelectorAll("details.dropdown[open]").forEach(function (open) {
      if (!open.contains(event.target)) { open.open = false; }
    });
  });

  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") { return; }
    document.querySelectorAll("details.dropdown[open]").forEach(function (open) {
      open.open = false;
      open.querySelector("summary").focus();
    });
  });

  document.addEventListener("change", function (event) {
    if (event.target.matches("select[data-submit]")) { event.target.form.requestSubmit(); }
  });

  // What renews itself does so only while it is looked at, and not under the fingers of whoever is in it.
  document.addEventListener("htmx:beforeRequest", function (event) {
    var element = event.detail.elt;
    if (!element.hasAttribute("data-when-visible")) { return; }
    if (document.hidden || element.contains(document.activeElement)) { event.preventDefault(); }
  });

  // Offer the visitor's own time zone where the page speaks another.
  document.querySelectorAll("button[data-local-zone]").forEach(function (button) {
    var local = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!local || button.dataset.currentZone === local) { return; }
    button.value = local;
    button.textContent = button.dataset.localZone.replace("ZONE", local);
    button.hidden = false;
  });

  document.querySelectorAll(".without-script").forEach(function (element) { element.hidden = true; });

  // What was typed before the scripts were there is searched for, checked and shown, too.
  window.addEventListener("load", function () {
    document.querySelectorAll("input, textarea").forEach(function (field) {
      if (field.value !== field.defaultValue) { field.dispatchEvent(new Event("input", { bubbles: true })); }
    });
  });

  // Links of tiles and tabs keep the place on the page.
  var kept = "tidewire-scroll";
  document.addEventListener("click", function (event) {
    if (event.target.closest("[data-keep-scroll]")) { sessionStorage.setItem(kept, String(window.scrollY)); }
  });
  var scroll = sessionStorage.getItem(kept);
  if (scroll !== null) {
    sessionStorage.removeItem(kept);
    window.scrollTo(0, Number(scroll));
  }
})();
