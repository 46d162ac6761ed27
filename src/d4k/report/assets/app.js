"use strict";
/* Keys, theme and help; and the start, when all other scripts are there. */
(function (d4k) {
  const { el, model } = d4k;
  const $ = (id) => document.getElementById(id);
  const go = (view) => () => d4k.route.go(view, {});
  let single = d4k.store.get("d4k-keys") !== false; // shortcuts of one key, which speech control may press by mistake

  const everywhere = [
    { keys: ["?"], label: "?", does: "these keys", run: help },
    { keys: ["t"], label: "T", does: "light, dark, or as the system has it", run: nextTheme },
    { keys: ["Alt+1"], label: "Alt + 1 to 4", does: "scores, pictures, viewer, blind vote", run: go("scores") },
    { keys: ["Alt+2"], run: go("pictures") },
    { keys: ["Alt+3"], run: go("view") },
    { keys: ["Alt+4"], run: go("vote") },
    { keys: ["Escape"], label: "Esc", does: "leave a field, or close this", run: () => document.activeElement.blur() },
  ];

  function pressedKey(event) {
    if (event.altKey && /^Digit[0-9]$/.test(event.code)) return `Alt+${event.code.slice(5)}`;
    if (event.altKey) return null;
    return event.key.length === 1 ? event.key.toLowerCase() : event.key;
  }

  /** Whether a key belongs to what has the focus. */
  function taken(event, key) {
    if (key === "Escape" || key.startsWith("Alt+")) return false;
    const { target } = event;
    if (target.closest("textarea, select, input:not([type=checkbox]):not([type=range])")) return true;
    if (target.matches("input[type=range], [role=slider]") && /^(Arrow|Page|Home|End)/.test(key)) return true;
    if (target.closest(".wide") && /^Arrow(Left|Right)$/.test(key)) return true;
    return (key === " " || key === "Enter") && Boolean(target.closest("button, a, summary, input"));
  }

  function onKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || $("help").open) return;
    const key = pressedKey(event);
    if (key === null || taken(event, key)) return;
    if (!single && key.length === 1 && key !== "?") return;
    const bindings = [...d4k.views[d4k.route.view].keys, ...everywhere];
    const found = bindings.find((binding) => binding.keys.includes(key) && (!binding.when || binding.when()));
    if (!found || (event.repeat && found.once)) return;
    event.preventDefault();
    found.run(event);
  }

  function help() {
    const table = (bindings) =>
      el("dl", { class: "keys" }, bindings.filter((binding) => binding.label).map((binding) =>
        [el("dt", {}, el("kbd", { text: binding.label })), el("dd", { text: binding.does })]));
    const view = d4k.views[d4k.route.view];
    $("help-keys").replaceChildren(
      ...(view.keys.length ? [el("h3", { text: view.title }), table(view.keys)] : []),
      el("h3", { text: "Everywhere" }), table(everywhere)
    );
    $("help").showModal();
  }

  const THEMES = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" };
  function setTheme(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    $("theme").textContent = THEMES[theme];
    $("theme").setAttribute("aria-label", `Colours: ${theme}`);
    d4k.store.set("d4k-theme", theme);
    setTheme.now = theme;
  }

  function nextTheme() {
    const names = Object.keys(THEMES);
    setTheme(names[(names.indexOf(setTheme.now) + 1) % names.length]);
    d4k.say(`Colours: ${setTheme.now}.`);
  }

  function fail(text) {
    document.querySelector("main").replaceChildren(el("p", { class: "failure", role: "alert", text }));
  }

  function start() {
    const theme = d4k.store.get("d4k-theme");
    setTheme(THEMES[theme] ? theme : "auto");
    if (model.fault) return fail(model.fault);
    if (!window.OpenSeadragon) return fail("The file openseadragon.min.js is missing. It lies beside index.html.");
    $("title").textContent = model.data.title;
    $("theme").addEventListener("click", nextTheme);
    $("help-open").addEventListener("click", help);
    $("help-close").addEventListener("click", () => $("help").close());
    $("single").checked = single;
    $("single").addEventListener("change", function () {
      single = $("single").checked;
      d4k.store.set("d4k-keys", single);
    });
    $("skip").addEventListener("click", function (event) {
      event.preventDefault();
      document.querySelector("main").focus();
    });
    document.addEventListener("keydown", onKey);
    d4k.views.vote.start();
    d4k.route.start();
  }

  start();
})(window.d4k);
