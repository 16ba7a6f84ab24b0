// The page as a whole: its sections, keys, and what follows from the address.

function selectPlace(place) {
  const metric = view.sort?.split("/").slice(1).join("/");
  view.place = place;
  find("place").value = String(place);
  for (const element of document.querySelectorAll(".where")) element.textContent = data.places[place].name;
  if (!view.all && metric) view.sort = `${place}/${metric}`; // the same metric, of this split
  if (!rowsHere().includes(view.row)) view.row = rowsHere()[0] ?? 0;
  for (const render of [renderTable, renderErrors, renderEvents, renderGaps, renderGroups, renderWorst]) render();
}

const films = new Map(); // card to its player, while it is in sight

const lazily = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && !films.has(target)) {
      const player = target.makePlayer();
      films.set(target, player);
      target.querySelector(".film-place").replaceChildren(player.element);
    } else if (!isIntersecting) {
      films.get(target)?.pause();
    }
  }
}, { rootMargin: "200px" });

function renderWorst() {
  lazily.disconnect();
  for (const player of films.values()) player.pause();
  films.clear();
  const rows = rowsHere();
  const body = find("worst-body");
  find("worst-choices").replaceChildren(
    ...(rows.length
      ? [choice("tracker", rows.map((row) => [String(row), data.rows[row].name]), String(view.row), (value) => { view.row = Number(value); renderWorst(); })]
      : []),
  );
  const found = casesOf(view.place, view.row);
  const n = found.find((m) => data.pictures.some((picture) => m in picture.tracks)) ?? found[0];
  const one = data.cases[n];
  const shown = (one?.worst ?? []).filter((video) => pictureOf(one, video));
  body.replaceChildren(...(shown.length ? shown.map((video) => filmCard(n, video)) : [h("p", { class: "note" }, "No pictures.")]));
  for (const card of body.querySelectorAll(".card")) lazily.observe(card);
}

/** A video of a row: truth beside the tracker, and what went wrong. */
function filmCard(n, video) {
  const one = data.cases[n];
  const picture = pictureOf(one, video);
  const events = one.events.filter((event) => event[0] === video).map((event) => eventCase(n, event));
  const state = { row: data.rows[one.row].name, split: data.places[one.place].name, video: videoOf(one, video).id };
  if (casesOf(one.place, one.row).length > 1) state.seed = one.seed;
  const kinds = [...new Set(events.map(({ kind }) => kind))];
  const numbers = ["AP", "AssA", "IDF1"].filter((metric) => metric in one.values).map((metric) => [metric, one.values[metric][video]]);
  const card = h(
    "article",
    { class: "card" },
    h(
      "header",
      {},
      h("h3", {}, h("a", { href: hashOf(state) }, videoName(one, video))),
      h("p", {}, numbers.map(([metric, value]) => h("span", {}, `${metric} `, h("a", { class: "number", href: hashOf({ ...state, metric }) }, percent(value)), " "))),
    ),
    h("div", { class: "film-place", style: { "aspect-ratio": `${2 * picture.width} / ${1.9 * picture.height}` } }),
    h(
      "p",
      { class: "kinds" },
      events.length
        ? kinds.map((kind) => {
            const own = events.filter((event) => event.kind === kind);
            return h("a", { href: hashOf({ ...state, frame: own[0].frame, event: kind }) }, `${own.length} × ${kind}`);
          })
        : "no identity event",
    ),
  );
  card.makePlayer = () =>
    new Player(
      picture,
      [
        { title: "truth", tracks: picture.instances },
        { title: data.rows[one.row].name, tracks: picture.tracks[n] ?? [] },
      ],
      { compact: true, frame: events[0]?.frame, failures: events, length: videoOf(one, video).frames },
    );
  return card;
}

function renderRuns() {
  const fields = [...new Set(data.cards.flatMap((card) => Object.keys(card)))].filter((name) => name !== "run");
  find("runs-body").replaceChildren(
    ...data.cards.map((card) =>
      h(
        "details",
        { open: data.cards.length === 1 },
        h("summary", {}, card.run),
        h("dl", {}, fields.filter((name) => name in card).flatMap((name) => [h("dt", {}, name), h("dd", {}, card[name])])),
      ),
    ),
    h("ul", { class: "note" }, data.notes.map((note) => h("li", {}, note))),
  );
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target, key } = event;
  const typing = target.matches?.("select, textarea, input:not([type=range]):not([type=checkbox])");
  if (typing) return;
  const help = find("help");
  if (key === "?") help.open ? help.close() : help.showModal();
  else if (help.open) return;
  else if ((key === "n" || key === "p") && !viewer.element.open) {
    if (!rowsHere().length) return;
    history.pushState(null, "", hashOf({ row: data.rows[view.row].name, split: data.places[view.place].name, metric: "AP" }));
    viewer.follow(location.hash);
    viewer.step(key === "n" ? 1 : -1);
  } else if (!viewer.element.open) return;
  else if (key === "n") viewer.step(1);
  else if (key === "p") viewer.step(-1);
  else if (key === "j") viewer.walk(1);
  else if (key === "k") viewer.walk(-1);
  else if (key === " " && !target.matches("button:not(.play), a, summary, input[type=checkbox]")) viewer.player?.toggle();
  else if (key === "ArrowRight" && target !== viewer.player?.slider) viewer.player?.step(1);
  else if (key === "ArrowLeft" && target !== viewer.player?.slider) viewer.player?.step(-1);
  else if (key === "m") viewer.player?.switchMasks();
  else return;
  event.preventDefault();
}

function start() {
  const videos = data.truths.reduce((sum, truth) => sum + truth.videos.length, 0);
  find("about").textContent = [
    plural(data.cards.length, "run"),
    plural(measuredRows().length, "tracker"),
    plural(data.places.length, "split"),
    plural(videos, "video"),
  ].join(" · ");
  find("place").replaceChildren(...data.places.map((place, n) => h("option", { value: String(n) }, `${place.data} ${place.split}`)));
  find("place").addEventListener("change", () => selectPlace(Number(find("place").value)));
  find("help-button").addEventListener("click", () => find("help").showModal());
  viewer.element.addEventListener("cancel", () => history.replaceState(null, "", "#"));
  viewer.element.addEventListener("close", () => {
    if (!viewer.element.open) viewer.close(); // it comes late: another case may be open by now
  });
  window.addEventListener("hashchange", () => viewer.follow(location.hash));
  document.addEventListener("keydown", onKey);
  const named = stateOf(location.hash).split;
  selectPlace(Math.max(0, named === undefined ? 0 : placeNamed(named)));
  renderRuns();
  viewer.follow(location.hash);
}

start();
