"use strict";
/* The blind vote: two pictures without names, a key a choice. Nothing leaves the folder but the file that is saved. */
(function (d4k) {
  const { el, model, ballot } = d4k;
  const view = (d4k.views.vote = { title: "Blind vote" });
  const $ = (id) => document.getElementById(id);
  let session = null;
  let pairs = [];
  let panes = null;
  let since = 0;
  let unsaved = 0;

  view.show = function (params) {
    const seed = params.has("seed") ? Number(params.get("seed")) >>> 0 : null;
    if (!session) resume();
    if (session && (seed === null || seed === session.seed)) ask();
    else prepare(seed, params);
  };

  view.hide = function () {
    if (panes) panes.close();
  };

  function resume() {
    session = ballot.kept();
    if (session) pairs = pairsOf(session);
    if (session && session.votes.length > pairs.length) session = null;
  }

  const pairsOf = (of) => ballot.pairs(model.rows, of.sets.map(model.setIndex), of.seed, of.limit);
  const show = function (part) {
    for (const id of ["vote-setup", "vote-booth", "vote-end"]) $(id).hidden = id !== part;
  };

  /** Asks who votes, and on what. */
  function prepare(seed, params) {
    show("vote-setup");
    const measured = model.sets.map((_, index) => index).filter((index) => !model.sets[index].photograph);
    const asked = (params.get("sets") || "").split(",").map(model.setIndex).filter((index) => index >= 0);
    const first = asked.length > 1 ? asked : measured.length > 1 ? measured : model.sets.map((_, index) => index);
    const boxes = model.sets.map((set, index) =>
      el("label", { class: "check" },
        el("input", { type: "checkbox", value: index, checked: first.includes(index), on: { change: count } }), el("span", { text: set.name })));
    const limits = [[0, "all pairs"], ...[10, 25, 50, 100, 200].map((limit) => [limit, `${limit} pairs`])];
    let limit = 0;
    $("vote-form").replaceChildren(
      el("fieldset", {}, el("legend", { text: "Which sets compete" }), boxes),
      d4k.choice("How many", limits, 0, (value) => ((limit = Number(value)), count()), { id: "vote-limit" }),
      el("label", { class: "choice" }, el("span", { text: "Your name, or a sign of yours" }), el("input", { type: "text", id: "voter", maxlength: 80, autocomplete: "off" })),
      el("p", { class: "quiet", id: "vote-count", role: "status" }),
      d4k.button("Begin", begin, { id: "vote-begin", class: "main" })
    );
    function chosen() {
      return [...$("vote-form").querySelectorAll("input[type=checkbox]:checked")].map((box) => Number(box.value));
    }
    function count() {
      const all = ballot.pairs(model.rows, chosen(), 0, limit).length;
      $("vote-count").textContent = all ? `You will be asked ${d4k.count(all, "time")}.` : "Choose two sets that have pictures of the same rows.";
      $("vote-begin").disabled = !all;
    }
    function begin() {
      session = ballot.start(chosen(), seed === null ? d4k.freshSeed() : seed, limit, $("voter").value.trim());
      pairs = pairsOf(session);
      ballot.keep(session);
      ask();
    }
    count();
  }

  /** On a narrow screen the left one is the upper one. */
  const names = () => (window.innerWidth < 700 ? ["Upper", "Lower"] : ["Left", "Right"]);

  /** Shows the next pair, or the end. */
  function ask() {
    const number = session.votes.length;
    if (number >= pairs.length) return finish();
    show("vote-booth");
    if (!panes) panes = view.panes = new d4k.Panes($("vote-panes"));
    const [first, second] = names();
    $("vote-stage").dataset.mode = first === "Left" ? "side" : "stack";
    $("vote-left").firstChild.textContent = first;
    $("vote-right").firstChild.textContent = second;
    const pair = pairs[number];
    const row = model.rows[pair.row];
    const side = (name, label) => ({ label, alt: `${label}, ${model.title(row)}`, picture: row.pictures[pair[name]] });
    panes.open([side(pair.left, `${first} picture`), side(pair.left === "a" ? "b" : "a", `${second} picture`)], null);
    for (const pane of panes.panes) pane.element.dataset.role = pane.caption.dataset.role = "free";
    $("vote-prompt").textContent = row.prompt || "";
    $("vote-progress").textContent = `${number + 1} of ${pairs.length}`;
    $("vote-bar").max = pairs.length;
    $("vote-bar").value = number;
    $("vote-undo").disabled = number === 0;
    since = performance.now();
  }

  view.choose = function (side) {
    if (!session || $("vote-booth").hidden) return;
    const pair = pairs[session.votes.length];
    const seconds = Math.round(performance.now() - since) / 1000;
    session.votes.push({ choice: ballot.choice(pair, side), seconds });
    unsaved += 1;
    if (!ballot.keep(session) && session.votes.length === 1) d4k.say("This browser keeps nothing: save the file before you close the page.");
    ask();
    d4k.say(side === "tie" ? "No preference." : `The ${names()[side === "left" ? 0 : 1].toLowerCase()} one.`);
  };

  view.undo = function () {
    if (!session || !session.votes.length) return;
    session.votes.pop();
    ballot.keep(session);
    ask();
    d4k.say("The last vote is taken back.");
  };

  /** Only at the end the names are told. */
  function finish() {
    if (panes) panes.close();
    show("vote-end");
    const nameOf = (index) => model.sets[index].name;
    const lines = ballot.tally(session, pairs).map(({ a, b, wins }) =>
      el("li", { text: `${nameOf(a)} was preferred ${d4k.count(wins.a, "time")}, ${nameOf(b)} ${d4k.count(wins.b, "time")}; ${d4k.count(wins.tie, "tie")}.` }));
    $("vote-tally").replaceChildren(...lines);
  }

  view.text = () => JSON.stringify(ballot.file(session, pairs), null, 1);

  function save() {
    if (!session) return;
    const address = URL.createObjectURL(new Blob([view.text()], { type: "application/json" }));
    const who = session.voter.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
    const link = el("a", { href: address, download: `votes${who ? "-" + who : ""}-${session.created.slice(0, 10)}.json` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    unsaved = 0;
    d4k.say("The votes are saved as a file.");
  }

  function forget() {
    if (unsaved && !window.confirm("Votes were not saved as a file. Forget them?")) return;
    ballot.keep(null);
    session = null;
    unsaved = 0;
    prepare(null, new URLSearchParams());
  }

  view.start = function () {
    const on = (id, run) => $(id).addEventListener("click", run);
    on("vote-left", () => view.choose("left"));
    on("vote-right", () => view.choose("right"));
    on("vote-tie", () => view.choose("tie"));
    on("vote-undo", view.undo);
    on("vote-back", view.undo);
    for (const id of ["vote-save", "vote-save-end"]) on(id, save);
    on("vote-copy", () => d4k.copy(view.text(), "The votes are copied."));
    for (const id of ["vote-forget", "vote-again"]) on(id, forget);
    window.addEventListener("beforeunload", (event) => unsaved && !d4k.store.get(ballot.key) && event.preventDefault());
  };

  const voting = () => session !== null && !$("vote-booth").hidden;
  const pan = (right, down) => () => panes.panBy(right * 96, down * 96);
  const key = (keys, label, does, run, more) => ({ keys, label, does, run, when: voting, ...more });
  view.keys = [
    key(["1", "ArrowLeft"], "1 or ←", "the left, or upper, one is better", () => view.choose("left"), { once: true }),
    key(["2", "ArrowRight"], "2 or →", "the right, or lower, one is better", () => view.choose("right"), { once: true }),
    key(["0", "ArrowDown"], "0 or ↓", "no preference", () => view.choose("tie"), { once: true }),
    { keys: ["u"], label: "U", does: "take the last vote back", run: view.undo, once: true },
    key(["+", "="], "+ and −", "zoom in and out", () => panes.zoomBy(1.5)),
    key(["-", "_"], null, "", () => panes.zoomBy(1 / 1.5)),
    key(["f"], "F", "show all of it", () => panes.go(null)),
    key(["z"], "Z, X", "1:1, 8:1", () => panes.zoomTo(1)),
    key(["x"], null, "", () => panes.zoomTo(8)),
    key(["a"], "A W S D", "move", pan(-1, 0)),
    key(["d"], null, "", pan(1, 0)),
    key(["w"], null, "", pan(0, -1)),
    key(["s"], null, "", pan(0, 1)),
  ];
})(window.d4k);
