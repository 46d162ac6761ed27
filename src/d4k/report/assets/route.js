"use strict";
/* The address after `#` holds what is seen: `#view?row=7&sets=photographs,run-a&mode=side&x=2048.5&y=1024&z=8`.
   Every step that a reader would want to take back is an entry of the history; moving about replaces the last one. */
(function (d4k) {
  const route = (d4k.route = { view: null, params: new URLSearchParams() });
  const usual = "scores";

  route.hash = function (view, params) {
    const text = new URLSearchParams();
    for (const [key, value] of Object.entries(params || {})) {
      if (value !== null && value !== undefined && value !== "" && value !== false) text.set(key, String(value));
    }
    const said = text.toString().replace(/%2C/g, ",");
    return `#${view}${said ? "?" + said : ""}`;
  };

  route.read = function () {
    const [name, query] = window.location.hash.replace(/^#/, "").split(/\?(.*)/s);
    return { view: d4k.views[name] ? name : usual, params: new URLSearchParams(query || "") };
  };

  /** Writes the address and shows nothing. */
  route.note = function (view, params, push) {
    const hash = route.hash(view, params);
    if (hash === window.location.hash) return;
    try {
      window.history[push ? "pushState" : "replaceState"](null, "", hash);
    } catch (error) {
      route.quiet = hash; // some browsers refuse it for pages from disk
      if (push) window.location.hash = hash;
      else window.location.replace(hash);
    }
  };

  /** Goes to a view; an entry of the history. */
  route.go = function (view, params) {
    route.note(view, params, true);
    route.show();
  };

  route.show = function () {
    const { view, params } = route.read();
    const changed = route.view !== view;
    if (changed && route.view) d4k.views[route.view].hide();
    route.view = view;
    for (const name of Object.keys(d4k.views)) document.getElementById(`part-${name}`).hidden = name !== view;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.documentElement.dataset.view = view;
    document.title = `${d4k.views[view].title} · ${d4k.model.data.title}`;
    if (changed) window.scrollTo(0, 0);
    d4k.views[view].show(params, changed);
  };

  route.start = function () {
    window.addEventListener("hashchange", function () {
      if (route.quiet === window.location.hash) route.quiet = null;
      else route.show();
    });
    route.show();
  };
})(window.d4k);
