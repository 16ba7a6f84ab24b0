// The cases behind a number, and the viewer that shows them.

const videoOf = (one, video) => data.truths[one.truth].videos[video];

function videoName(one, video) {
  const { id, name } = videoOf(one, video);
  return name && name !== String(id) ? `video ${id} (${name})` : `video ${id}`;
}

/** Number that the pictures give to the track at a place among the predictions; null where it is not shown. */
function trackId(n, video, place) {
  const tracks = pictureOf(data.cases[n], video)?.tracks[n];
  return place === null ? null : (tracks?.[place]?.id ?? null);
}

/** An identity event as a case. */
function eventCase(n, event) {
  const [video, kind, frame, last, instance, from, to, other] = event;
  const ids = [from, to].map((place) => trackId(n, video, place));
  const [before, after] = ids.map((id) => (id === null ? "another track" : `track ${id}`));
  const name = data.events[kind];
  const goes = from === null ? `begins with ${after}` : to === null ? `loses ${before}` : `goes from ${before} to ${after}`;
  const beside = other === null ? "" : `, with instance ${other + 1}`;
  return {
    video,
    frame,
    last,
    kind: name,
    text: `instance ${instance + 1} ${goes}${beside}`,
    instances: [instance, other].filter((g) => g !== null).map((g) => g + 1),
    tracks: ids.filter((id) => id !== null),
  };
}

/** An error as a case. */
function errorCase(n, kind, error) {
  const [video, frame, label, prediction, score, instance, iou] = error;
  const id = trackId(n, video, prediction);
  const who = prediction === null ? `instance ${instance + 1}` : id === null ? "a prediction" : `track ${id}`;
  const about = prediction !== null && instance !== null ? `, IoU ${iou.toFixed(2)} with instance ${instance + 1}` : "";
  return {
    video,
    frame,
    kind: kind.replace("_", " "),
    value: score === null ? "-" : score.toFixed(2),
    text: `${who}, ${label}${about}`,
    instances: instance === null ? [] : [instance + 1],
    tracks: id === null ? [] : [id],
  };
}

function errorsOf(n, kind) {
  const { errors } = data.cases[n];
  const kinds = kind === "false_positives" ? Object.keys(errors).filter((name) => !["missed", "false_negatives"].includes(name)) : [kind];
  const found = kinds.flatMap((name) => (Object.hasOwn(errors, name) ? errors[name] : []).map((error) => ({ ...errorCase(n, name, error), score: error[4] ?? 0 })));
  return found.sort((a, b) => b.score - a.score);
}

/** {title, note, failures: whether these are failures, items} behind a number; n is the place of the case. */
function listOf(n, state) {
  const one = data.cases[n];
  const byVideo = (pairs, falling, format) =>
    pairs
      .sort((a, b) => (a[1] === null) - (b[1] === null) || (falling ? b[1] - a[1] : a[1] - b[1]) || a[0] - b[0])
      .map(([video, value]) => ({ video, value: format(value) }));
  if (state.error) {
    const items = errorsOf(n, state.error);
    const total = data.numbers[one.place][one.row][`error/${state.error}/errors`];
    const more = total && casesOf(one.place, one.row).length === 1 && total[0] > items.length;
    const note = [Object.hasOwn(ERRORS, state.error) ? ERRORS[state.error] : null, items.some(({ value }) => value !== "-") ? "by score" : null, more ? `${items.length} of ${countOf(total)}` : null].filter(Boolean).join("; ");
    return { title: `${state.error.replace("_", " ")} errors`, note, failures: true, items };
  }
  if (state.event) {
    const kind = data.events.indexOf(state.event);
    const items = one.events.filter((event) => kind < 0 || event[1] === kind).map((event, i) => ({ ...eventCase(n, event), value: String(i + 1) }));
    return { title: `identity events, ${state.event}`, note: `${plural(items.length, "event")}, by video, with their frames`, failures: true, items };
  }
  if (state.gap) {
    const values = one.values[`oracle/${state.gap}/AP gap`] ?? [];
    const items = byVideo(values.map((value, video) => [video, value]), true, percent);
    return { title: `${state.gap} gap`, note: "points of AP of each video alone, greatest first", failures: false, items };
  }
  if (state.by) {
    const members = data.truths[one.truth].groups[`${state.by}/${state.group}`] ?? [];
    const values = one.groups[`${state.by}/${state.group}/${state.metric}`] ?? [];
    const items = byVideo(members.map(([video], i) => [video, values[i] ?? null]), false, percent);
    const counts = new Map(members);
    for (const item of items) item.more = plural(counts.get(item.video), "instance");
    return { title: `${state.metric} of ${state.by} ${state.group}`, note: "videos with such instances, worst first", failures: false, items };
  }
  const metric = Object.hasOwn(one.values, state.metric ?? "AP") ? (state.metric ?? "AP") : "AP";
  const items = byVideo((one.values[metric] ?? []).map((value, video) => [video, value]), false, percent);
  for (const item of items) {
    const events = one.events.filter(([video]) => video === item.video).length;
    item.more = events ? plural(events, "identity event") : "";
  }
  return { title: metric, note: "of each video alone, worst first", failures: false, items };
}

/** All failures of a case that pictures show, by the order of its list: identity events, or errors without any. */
function failuresOf(n, list) {
  const one = data.cases[n];
  let found = list.items;
  if (!list.failures) {
    const rank = new Map(list.items.map((item, i) => [item.video, i]));
    found = one.events.map((event) => eventCase(n, event));
    if (!found.length) found = ["temporal", "spatial", "classification", "missed"].flatMap((kind) => errorsOf(n, kind));
    const place = (item) => rank.get(item.video) ?? Infinity;
    found = found.sort((a, b) => place(a) - place(b) || a.frame - b.frame);
  }
  const isShown = ({ video, frame }) => {
    const picture = pictureOf(one, video);
    return picture && String(n) in picture.tracks && frame >= picture.first && frame < picture.first + picture.frames.length;
  };
  return { shown: found.filter(isShown), hidden: found.length - found.filter(isShown).length };
}

const CAN_SHOW = ["row", "split", "seed", "metric", "error", "event", "gap", "by", "group"];

const viewer = {
  element: find("viewer"),
  state: {},
  player: null,
  listKey: null,

  /** Opens what the hash says, or closes. */
  follow(hash) {
    const state = stateOf(hash);
    const [place, row] = [state.split === undefined ? view.place : placeNamed(state.split), rowNamed(state.row)];
    if (place >= 0 && place !== view.place) selectPlace(place);
    if (state.row === undefined) {
      this.close();
      return;
    }
    const found = row < 0 || place < 0 ? [] : casesOf(place, row);
    const n = state.seed === undefined ? found[0] : found.find((m) => String(data.cases[m].seed) === state.seed);
    if (place < 0) this.refuse(`There is no split ${state.split} in this report.`);
    else if (row < 0) this.refuse(`There is no row ${state.row} in this report.`);
    else if (!found.length) this.refuse(`There are no cases of ${state.row} on ${data.places[place].name} in this report.`);
    else if (n === undefined) this.refuse(`There is no seed ${state.seed} of ${state.row} in this report.`);
    else this.open(n, state);
  },

  /** Says that what the hash names is not there, instead of showing something else. */
  refuse(why) {
    this.close();
    this.stage = h("div", { class: "stage" }, h("p", { class: "note" }, why));
    const close = h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.leave() }, "×");
    this.element.replaceChildren(h("div", { class: "head" }, h("h2", { id: "viewer-title" }, "Not in this report"), close), h("div", { class: "main" }, this.stage));
    this.failures = { shown: [], hidden: 0 };
    this.list = { items: [] };
    this.buttons = [];
    this.reveal();
  },

  reveal() {
    if (!this.element.open) {
      this.element.showModal();
      this.element.focus(); // no button: space plays
    }
  },

  open(n, state) {
    const key = JSON.stringify([n, ...CAN_SHOW.map((name) => state[name])]);
    this.n = n;
    this.state = { ...state };
    if (key !== this.listKey) {
      this.listKey = key;
      this.list = listOf(n, state);
      this.failures = failuresOf(n, this.list);
      this.at = -1;
      this.build();
    }
    const one = data.cases[n];
    const { items } = this.list;
    const byId = data.truths[one.truth].videos.findIndex(({ id }) => String(id) === state.video);
    const pictured = items.find((item) => pictureOf(one, item.video));
    const named = Number.isInteger(Number(state.case)) ? items[Number(state.case)] : undefined;
    const item = named && (byId < 0 || named.video === byId) ? named : items.find(({ video }) => video === byId);
    const chosen = item ?? (byId >= 0 ? { video: byId } : (pictured ?? items[0]));
    const number = state.frame ? Number(state.frame) : undefined;
    const frame = Number.isInteger(number) ? number : undefined;
    const failure = state.failure === undefined ? undefined : this.failures.shown[Number(state.failure)];
    if (state.video !== undefined && byId < 0) {
      this.player?.pause();
      this.player = null;
      this.item = undefined;
      this.said.textContent = "";
      this.stage.replaceChildren(h("p", { class: "note" }, `There is no video ${state.video} of ${data.places[one.place].name} in this report.`));
    } else if (failure && failure.video === byId) {
      this.at = this.failures.shown.indexOf(failure);
      this.show(failure, frame);
    } else if (chosen) this.show(chosen, frame);
    else this.stage.replaceChildren(h("p", { class: "note" }, "There are none."));
    this.reveal();
  },

  close() {
    this.player?.pause();
    this.player = null;
    this.listKey = null;
    if (this.element.open) this.element.close();
  },

  build() {
    const one = data.cases[this.n];
    const { name } = data.rows[one.row];
    const seeds = casesOf(one.place, one.row).map((m) => String(data.cases[m].seed));
    const go = (state) => { location.hash = hashOf({ ...this.state, ...state, video: undefined, frame: undefined, case: undefined, failure: undefined }); };
    const seed =
      new Set(seeds).size > 1
        ? choice("seed", seeds.map((value) => [value, value]), String(one.seed), (value) => go({ seed: value }))
        : null;
    const mixed = new Set(this.list.items.map(({ kind }) => kind)).size > 1;
    this.buttons = this.list.items.map((item, i) => {
      const more = item.text ? (mixed ? `${item.kind}: ${item.text}` : item.text) : item.more;
      const dull = !pictureOf(one, item.video);
      return h(
        "button",
        { type: "button", class: dull ? "dull" : null, title: dull ? "without pictures" : null, onclick: (event) => this.clicked(event, () => this.choose(i)) },
        h("b", {}, item.value),
        h("span", {}, videoName(one, item.video), item.frame === undefined ? "" : `, frame ${item.frame}`, more ? h("small", {}, more) : null),
      );
    });
    const others = measuredRows().filter((row) => row !== one.row && this.peer(row) !== undefined);
    const chosen = new Set(this.besides());
    this.beside = h(
      "details",
      { class: "beside", open: chosen.size > 0 },
      h("summary", {}, "beside other trackers"),
      others.map((row) =>
        checkbox(data.rows[row].name, chosen.has(row), (on) => {
          if (on) chosen.add(row);
          else chosen.delete(row);
          this.state.beside = chosen.size ? JSON.stringify([...chosen].map((other) => data.rows[other].name)) : undefined;
          if (this.item) this.show(this.item, this.player?.frame);
        }),
      ),
    );
    this.stage = h("div", { class: "stage" });
    this.said = h("p", { class: "said", "aria-live": "polite" });
    const { shown, hidden } = this.failures;
    this.counter = h("span", { class: "counter", "aria-live": "polite" });
    this.hidden = hidden;
    this.element.replaceChildren(
      h(
        "div",
        { class: "head" },
        h("h2", { id: "viewer-title" }, name, h("small", {}, ` ${data.places[one.place].name}, ${this.list.title}`)),
        seed,
        h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.leave() }, "×"),
      ),
      h(
        "div",
        { class: "body" },
        h("aside", {}, h("p", { class: "note" }, this.list.note), h("ol", {}, this.buttons.map((button) => h("li", {}, button)))),
        h(
          "div",
          { class: "main" },
          h(
            "div",
            { class: "steps" },
            h("button", { type: "button", disabled: !shown.length, onclick: (event) => this.clicked(event, () => this.step(-1)), class: "previous" }, "Previous failure ", h("kbd", {}, "p")),
            h("button", { type: "button", disabled: !shown.length, onclick: (event) => this.clicked(event, () => this.step(1)), class: "next" }, "Next failure ", h("kbd", {}, "n")),
            this.counter,
          ),
          this.said,
          this.stage,
          others.length ? this.beside : null,
        ),
      ),
    );
    this.count();
  },

  /** After a click of a mouse the keys are those of the viewer again; the keyboard stays where it is. */
  clicked(event, act) {
    act();
    if (event.detail) this.element.focus();
  },

  count() {
    const { shown, hidden } = this.failures;
    const more = hidden ? `, ${hidden} more in frames without pictures` : "";
    this.counter.textContent = this.at >= 0 ? `failure ${this.at + 1} of ${shown.length}${more}` : `${plural(shown.length, "failure")}${more}`;
  },

  /** Rows beside this one: the address has their names, as a list, as words of a row may have commas. */
  besides() {
    let names;
    try {
      names = JSON.parse(this.state.beside ?? "[]");
    } catch {
      return []; // cut off on its way
    }
    return (Array.isArray(names) ? names : []).map(rowNamed).filter((row) => row >= 0);
  },

  /** The case of another row that is shown on the same video: one that pictures have. */
  peer(row) {
    const own = data.cases[this.n];
    const shown = new Set(data.pictures.filter(({ truth }) => truth === own.truth).flatMap(({ tracks }) => Object.keys(tracks)));
    return casesOf(own.place, row).find((m) => data.cases[m].truth === own.truth && shown.has(String(m)));
  },

  choose(i) {
    const item = this.list.items[i];
    this.at = this.list.failures ? this.failures.shown.indexOf(item) : -1;
    this.show(item, item.frame, i);
  },

  /** Shows a video, at a frame; marks who is in a failure. */
  show(item, frame, i) {
    const one = data.cases[this.n];
    const { id, frames } = videoOf(one, item.video);
    const picture = pictureOf(one, item.video);
    if (item.text && this.list.failures && this.at < 0) this.at = this.failures.shown.indexOf(item);
    this.item = item;
    this.player?.pause();
    this.player = null;
    const listed = i ?? this.list.items.indexOf(item);
    this.buttons.forEach((button, k) => {
      const current = listed >= 0 ? k === listed : this.list.items[k].video === item.video;
      button.toggleAttribute("aria-current", current);
      if (current) button.setAttribute("aria-current", "true");
      if (current) button.scrollIntoView?.({ block: "nearest" });
    });
    this.said.textContent = item.text ? `${videoName(one, item.video)}, frame ${item.frame}: ${item.text} (${item.kind})` : videoName(one, item.video);
    this.count();
    Object.assign(this.state, { row: data.rows[one.row].name, split: data.places[one.place].name, video: id, case: listed >= 0 && item.text ? listed : undefined });
    this.state.failure = listed < 0 && item.text ? this.at : undefined;
    const tracks = picture?.tracks[this.n];
    if (!tracks) {
      this.state.frame = item.frame;
      this.remember();
      const why = picture ? "The pictures of this row are those of its first seed." : "This video has no pictures here: the report holds those of the worst videos.";
      this.stage.replaceChildren(h("p", { class: "note" }, `${why} On the command line: `, h("code", {}, `vistk show ${one.run} ${id} --split ${data.places[one.place].split} --rows ${data.rows[one.row].name.split(" ")[0]}`)));
      return;
    }
    const events = one.events.filter(([video]) => video === item.video).map((event) => eventCase(this.n, event));
    const panels = [
      { title: "truth", tracks: picture.instances, marked: item.instances },
      { title: data.rows[one.row].name, tracks, marked: item.tracks },
      ...this.besides().flatMap((row) => {
        const peer = this.peer(row);
        return peer === undefined ? [] : [{ title: data.rows[row].name, tracks: picture.tracks[peer] ?? [] }];
      }),
    ];
    this.player = new Player(picture, panels, {
      frame: frame ?? item.frame,
      length: frames,
      failures: item.text && this.list.failures ? [...events, item] : events,
      onframe: (now) => {
        this.state.frame = now;
        if (!this.player?.playing) this.remember();
      },
    });
    this.stage.replaceChildren(this.player.element);
  },

  /** What is shown, in the address: to be sent, or found again. */
  remember() {
    history.replaceState(null, "", hashOf(this.state));
  },

  /** The next or the previous failure. */
  step(by) {
    const { shown } = this.failures;
    if (!shown.length) return;
    if (this.at < 0) {
      const [now, here] = [this.player?.frame ?? -1, this.item?.video];
      const first = shown.findIndex(({ video, frame }) => video === here && (by > 0 ? frame >= now : true));
      this.at = first >= 0 ? first - (by > 0 ? 1 : 0) : by > 0 ? -1 : 0;
    }
    this.at = (this.at + by + shown.length) % shown.length;
    this.show(shown[this.at], shown[this.at].frame);
  },

  /** The next or the previous case of the list. */
  walk(by) {
    const { items } = this.list;
    const here = Math.max(0, this.buttons.findIndex((button) => button.hasAttribute("aria-current")));
    if (items.length) this.choose((here + by + items.length) % items.length);
  },

  leave() {
    this.close();
    history.replaceState(null, "", "#");
  },
};
