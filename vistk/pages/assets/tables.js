// The tables: comparison, errors, identity events, oracle gaps, breakdowns. Every number links to its cases.

const view = { place: 0, all: false, every: false, metric: "AP", ascending: false, by: null, of: "AP", row: 0 };

const FEW = ["AP", "AssA", "IDF1"]; // of every split, side by side
const MAIN = ["AP", "AP50", "AP75", "AR1", "AR10", "HOTA", "AssA", "IDF1", "APso", "APmo", "APho"];

const ERRORS = {
  classification: "right place, wrong class",
  duplicate: "an instance found twice",
  spatial: "right object and time, poor mask",
  temporal: "at the wrong time, or follows another object: identity switches are here",
  both: "wrong in class and in place",
  background: "nothing is there",
  missed: "nobody found it",
  false_positives: "every wrong prediction",
  false_negatives: "every instance that is not matched",
};
const GAPS = {
  AP: "as predicted",
  association: "won by right identities",
  classification: "then by right classes",
  mask: "then by right masks",
  missing: "what nobody saw",
};

const numberOf = (place, row, name) => data.numbers[place][row][name];
const measuredRows = () => data.rows.flatMap((row, n) => (row.quoted ? [] : [n]));
const rowsHere = () => measuredRows().filter((row) => casesOf(view.place, row).length);

function rowHeader(row) {
  const { name, seeds, quoted } = data.rows[row];
  const [first, ...words] = quoted ? [name] : name.split(" ");
  const more = quoted ?? (seeds.length > 1 ? `seeds ${seeds.join(", ")}` : null);
  const truth = data.rows[row]["given truth"] ? h("small", { class: "tag" }, "given the truth") : null;
  return h("th", { scope: "row" }, h("span", { class: "name" }, first, words.length ? h("small", {}, ` ${words.join(" ")}`) : null), truth, more ? h("small", {}, more) : null);
}

function choice(label, options, value, onchange) {
  const select = h(
    "select",
    { onchange: () => onchange(select.value) },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
  );
  return h("label", {}, `${label} `, select);
}

function checkbox(label, checked, onchange) {
  const box = h("input", { type: "checkbox", checked, onchange: () => onchange(box.checked) });
  return h("label", {}, box, ` ${label}`);
}

// Comparison

function tableColumns() {
  const places = view.all ? data.places.keys() : [view.place];
  const metrics = view.every ? data.metrics : (view.all ? FEW : MAIN).filter((name) => data.metrics.includes(name));
  return [...places].flatMap((place) => metrics.map((metric) => ({ place, metric, id: `${place}/${metric}` })));
}

function sortedRows(rows, column) {
  const value = (row) => (column ? (numberOf(column.place, row, column.metric)?.[0] ?? null) : data.rows[row].name);
  const order = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  return [...rows].sort((a, b) => {
    const [first, second] = [value(a), value(b)];
    if (first === null || second === null) return (first === null) - (second === null);
    return (view.ascending ? 1 : -1) * order(first, second) || a - b;
  });
}

function renderTable() {
  const columns = tableColumns().filter(({ place, metric }) =>
    data.rows.some((_, row) => (numberOf(place, row, metric)?.[0] ?? null) !== null),
  );
  const sorted = columns.find((column) => column.id === view.sort);
  const byName = view.sort === "name";
  const here = (row) => columns.some(({ place, metric }) => numberOf(place, row, metric));
  const measured = measuredRows().filter(here);
  const quoted = data.rows.flatMap((row, n) => (row.quoted && here(n) ? [n] : []));
  const order = (rows) => (sorted || byName ? sortedRows(rows, sorted) : rows);

  const sortButton = (id, label) =>
    h("button", { type: "button", onclick: () => sortBy(id), "data-sort": id }, label, h("span", { "aria-hidden": "true", class: "arrow" }));
  const ariaSort = (id) => (view.sort === id ? (view.ascending ? "ascending" : "descending") : null);
  const groups = h(
    "tr",
    {},
    h("td", {}),
    data.places.map((place) => h("th", { scope: "colgroup", colspan: columns.length / data.places.length }, place.name)),
  );
  const rivals = measured.filter((row) => !data.rows[row]["given truth"]);
  const best = new Map(
    columns.map(({ id, place, metric }) => {
      const values = rivals.map((row) => numberOf(place, row, metric)?.[0] ?? -Infinity);
      const most = Math.max(...values);
      return [id, values.every((value) => value === most) ? null : most];
    }),
  );
  const cell = (row, { id, place, metric }) => {
    const number = numberOf(place, row, metric);
    const text = percentOf(number);
    const top = rivals.includes(row) && number?.[0] !== null && number?.[0] === best.get(id);
    const what = `${data.rows[row].name}, ${data.places[place].name}: ${metric} ${text}, its videos`;
    return h("td", { class: top ? "best" : null }, numberLink(text, place, row, { metric }, { "aria-label": what }));
  };
  const body = (rows, kind) =>
    h("tbody", { class: kind }, order(rows).map((row) => h("tr", { "data-row": data.rows[row].name }, rowHeader(row), columns.map((column) => cell(row, column)))));
  const evenly = view.all && data.places.every((_, place) => columns.filter((c) => c.place === place).length * data.places.length === columns.length);
  const label = (column) => (view.all && !evenly ? `${data.places[column.place].name} ${column.metric}` : column.metric);
  const table = h(
    "table",
    {},
    h(
      "thead",
      {},
      evenly ? groups : null,
      h(
        "tr",
        {},
        h("th", { scope: "col", "aria-sort": ariaSort("name") }, sortButton("name", "tracker")),
        columns.map((column) => h("th", { scope: "col", "aria-sort": ariaSort(column.id) }, sortButton(column.id, label(column)))),
      ),
    ),
    body(measured, "measured"),
    quoted.length
      ? [
          h("tbody", { class: "apart" }, h("tr", {}, h("th", { colspan: columns.length + 1, scope: "rowgroup" }, "Quoted from papers, not measured here: other numbers of kept predictions, other test sizes"))),
          body(quoted, "quoted"),
        ]
      : [],
  );
  const focused = document.activeElement?.dataset?.sort;
  find("table-body").replaceChildren(table);
  if (focused) table.querySelector(`[data-sort="${CSS.escape(focused)}"]`)?.focus();
  const several = data.rows.some((row) => row.seeds.length > 1);
  const threshold = data.cases.find((one) => one.place === view.place)?.threshold;
  find("table-note").textContent = [
    `Percent${several ? "; mean ± standard deviation over seeds" : ""}.`,
    threshold === undefined ? null : `HOTA, AssA, IDF1 and identity events at score ≥ ${threshold}.`,
    "A number leads to its videos, a heading sorts.",
  ].filter(Boolean).join(" ");
  find("table-choices").replaceChildren(
    ...(data.places.length > 1 ? [checkbox("all splits side by side", view.all, (on) => { view.all = on; renderTable(); })] : []),
    checkbox("every metric", view.every, (on) => { view.every = on; renderTable(); }),
  );
}

function sortBy(id) {
  view.ascending = view.sort === id ? !view.ascending : id === "name";
  view.sort = id;
  renderTable();
}

// Tables of one number a cell, with a bar behind it

function barTable(id, head, rows, cell) {
  find(id).replaceChildren(
    rows.length
      ? h(
          "table",
          { class: "bars" },
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "tracker"), head)),
          h("tbody", {}, rows.map((row) => h("tr", { "data-row": data.rows[row].name }, rowHeader(row), cell(row)))),
        )
      : h("p", { class: "note" }, `${data.places[view.place].without ?? "There are no cases of this split"}.`),
  );
}

const barOf = (share, kind) => h("span", { class: `fill ${kind}`, "aria-hidden": "true", style: { width: `${100 * clamp(share, 0, 1)}%` } });

function renderErrors() {
  const rows = rowsHere();
  const cost = (row, kind) => numberOf(view.place, row, `error/${kind}/dAP`);
  const most = Math.max(...rows.flatMap((row) => data.errors.map((kind) => cost(row, kind)?.[0] ?? 0)), 1e-9);
  barTable(
    "errors-body",
    data.errors.map((kind) => h("th", { scope: "col", title: ERRORS[kind] }, kind.replace("_", " "))),
    rows,
    (row) =>
      data.errors.map((kind) => {
        const [text, count] = [percentOf(cost(row, kind)), countOf(numberOf(view.place, row, `error/${kind}/errors`))];
        const what = `${data.rows[row].name}: ${kind.replace("_", " ")} errors cost ${text} points, there are ${count}`;
        return h(
          "td",
          {},
          barOf((cost(row, kind)?.[0] ?? 0) / most, `error-${kind}`),
          numberLink(text, view.place, row, { error: kind }, { "aria-label": what }),
          numberLink(count, view.place, row, { error: kind }, { class: "number count", "aria-hidden": "true", tabindex: -1 }),
        );
      }),
  );
}

function renderEvents() {
  const rows = rowsHere();
  const count = (row, kind) => numberOf(view.place, row, `identity event/${kind}/events`);
  const kinds = data.events.filter((kind) => rows.some((row) => count(row, kind)?.[0]));
  const most = Math.max(...rows.flatMap((row) => kinds.map((kind) => count(row, kind)?.[0] ?? 0)), 1);
  if (rows.length && !kinds.length) {
    find("events-body").replaceChildren(h("p", { class: "note" }, "None."));
    return;
  }
  barTable(
    "events-body",
    kinds.map((kind) => h("th", { scope: "col" }, kind)),
    rows,
    (row) =>
      kinds.map((kind) => {
        const number = count(row, kind);
        const what = `${data.rows[row].name}: ${countOf(number)} events, ${kind}`;
        return h("td", {}, barOf((number?.[0] ?? 0) / most, "event"), numberLink(countOf(number), view.place, row, { event: kind }, { "aria-label": what }));
      }),
  );
}

function renderGaps() {
  const rows = rowsHere();
  const parts = ["AP", ...data.gaps];
  const number = (row, part) => numberOf(view.place, row, part === "AP" ? "AP" : `oracle/${part}/AP gap`);
  const stateOfPart = (part) => (part === "AP" ? { metric: "AP" } : { gap: part });
  const legend = parts.map((part) => h("th", { scope: "col", title: GAPS[part] }, h("span", { class: `key gap-${part}`, "aria-hidden": "true" }), part));
  barTable("gaps-body", [legend, h("th", { scope: "col", class: "wide" }, "together 100")], rows, (row) => [
    parts.map((part) => {
      const text = percentOf(number(row, part));
      return h("td", {}, numberLink(text, view.place, row, stateOfPart(part), { "aria-label": `${data.rows[row].name}: ${part} ${text}` }));
    }),
    h(
      "td",
      { class: "wide" },
      h(
        "div",
        { class: "stack", "aria-hidden": "true" },
        parts.map((part) => {
          const share = Math.max(0, number(row, part)?.[0] ?? 0);
          const href = hashOf({ row: data.rows[row].name, split: data.places[view.place].name, ...stateOfPart(part) });
          const title = `${part} ${percentOf(number(row, part))}: ${GAPS[part]}`;
          return h("a", { href, tabindex: -1, class: `gap-${part}`, title, style: { "flex-grow": share } }, share > 0.07 ? percent(share) : "");
        }),
      ),
    ),
  ]);
}

function renderGroups() {
  const rows = rowsHere();
  const there = new Set(rows.flatMap((row) => Object.keys(data.numbers[view.place][row]).filter((name) => name.split("/")[0] in data.attributes).map((name) => name.split("/")[0])));
  const attributes = Object.keys(data.attributes).filter((name) => there.has(name));
  if (!attributes.includes(view.by)) view.by = attributes.includes("objects") ? "objects" : attributes[0];
  const names = (row) => Object.keys(data.numbers[view.place][row]).filter((name) => name.startsWith(`${view.by}/`)).map((name) => name.split("/"));
  const groups = [...new Set(rows.flatMap((row) => names(row).map(([, group]) => group)))];
  const metrics = [...new Set(rows.flatMap((row) => names(row).map(([, , metric]) => metric)))].filter((name) => name !== "instances");
  if (!metrics.includes(view.of)) view.of = metrics[0];
  const number = (row, group, metric) => numberOf(view.place, row, `${view.by}/${group}/${metric}`);
  const filled = groups.filter((group) => rows.some((row) => number(row, group, "instances")?.[0]));
  find("groups-choices").replaceChildren(
    choice("by", attributes.map((name) => [name, name]), view.by, (value) => { view.by = value; renderGroups(); }),
    choice("show", metrics.map((name) => [name, name]), view.of, (value) => { view.of = value; renderGroups(); }),
  );
  find("groups-note").textContent = view.by
    ? `${data.attributes[view.by]}. Instances outside a group are ignored in its AP.`
    : "";
  barTable(
    "groups-body",
    filled.map((group) => h("th", { scope: "col" }, group, h("small", {}, plural(number(rows[0], group, "instances")?.[0] ?? 0, "instance")))),
    rows,
    (row) =>
      filled.map((group) => {
        const found = number(row, group, view.of);
        const what = `${data.rows[row].name}: ${view.of} ${percentOf(found)} of ${view.by} ${group}`;
        const state = { by: view.by, group, metric: view.of };
        return h("td", {}, barOf(found?.[0] ?? 0, "group"), numberLink(percentOf(found), view.place, row, state, { "aria-label": what }));
      }),
  );
}
