"use strict";
// Draws the model of a run (docs/report.md). Texts of the model come from containers: they become text nodes, and
// nothing else.
(() => {
const model = JSON.parse(document.getElementById("model").textContent);
const frames = JSON.parse(document.getElementById("frames").textContent);
const MOST_ROWS = document.documentElement.hasAttribute("data-live") ? 50 : 100, MORE_ROWS = 300, ROW = 22, MOST_KINDS = 8, OPEN_TREES = 60;
const COLOURS = ["#3b7dd8", "#d9822b", "#2f9e6e", "#a05fc4", "#c2a21a", "#2ba6b5", "#c75a8b", "#7b8794", "#7d6b52"];
const $ = id => document.getElementById(id);
const main = $("main");
const LIVE = document.documentElement.hasAttribute("data-live");
const FIRST = document.documentElement.dataset.first || "";
const ORDER = ["verdict", "findings", "checks", "timeline", "processes", "map", "files", "connections", "dns", "http", "profile", "rows", "made"].sort((a, b) => (b === FIRST) - (a === FIRST));

// Elements. A child that is no element is text.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== "").map(child => child instanceof Node ? child : String(child)));
  return element;
}
function section(id, title, about, ...children) {
  const found = make("section", {id, "aria-labelledby": `${id}-title`}, make("h2", {id: `${id}-title`}, title, about ? make("small", {}, about) : null), children);
  const before = $(id), after = ORDER.slice(ORDER.indexOf(id) + 1).find(name => $(name));
  if (before) before.replaceWith(found);
  else {
    main.insertBefore(found, after ? $(after) : null);
    $("parts").insertBefore(make("a", {href: `#${id}`}, id === "verdict" ? "Verdict" : title), after ? $("parts").querySelector(`[href="#${after}"]`) : null);
  }
  return found;
}
// What the user has set in a part, which is drawn again and again while a run goes on.
const kept = {};
const memory = (id, first) => kept[id] ||= first;
const pressed = (own, name, text, act) => {
  const found = make("button", {type: "button", "aria-pressed": String(Boolean(own[name]))}, text);
  return on(found, "click", () => { own[name] = !own[name]; found.setAttribute("aria-pressed", String(own[name])); act(); });
};
const on = (element, type, act) => { element.addEventListener(type, act); return element; };

// Numbers and times as in the terminal.
const number = n => n.toLocaleString("en-US");
const count = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : noun.endsWith("s") || noun.endsWith("x") ? "es" : "s"}`;
function three(n) { return n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2); }
function duration(ns) {
  for (const [size, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]]) if (ns >= size) return three(ns / size) + unit;
  return `${ns}ns`;
}
let BEGAN, LENGTH;
function measure() { BEGAN = Date.parse(model.began.slice(0, 23) + "Z"); LENGTH = model.timeline.bins * model.timeline.step_ms; }
measure();
const clock = (ms, digits = 0) => new Date(BEGAN + ms).toISOString().slice(11, digits ? 20 + digits : 19);

// What is filtered: words, and a part of the time.
const state = {words: [], from: -Infinity, to: Infinity};
const drawn = {};
let building = "";
const has = text => state.words.every(word => text.includes(word));
const during = (first, last) => first === null || first === undefined || (first <= state.to && (last ?? first) >= state.from);
const isWhole = () => state.from === -Infinity;
function redraw() {
  state.words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  $("whole").hidden = isWhole();
  $("span").textContent = isWhole() ? "" : `${clock(Math.max(0, state.from))} to ${clock(Math.min(LENGTH, state.to))} UTC`;
  for (const draw of Object.values(drawn).flat()) draw();
}
function follow(draw) { drawn[building].push(draw); draw(); }
let waiting = 0;
on($("filter"), "input", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 120); });
on($("whole"), "click", () => zoom(-Infinity, Infinity));
function zoom(from, to) { state.from = from; state.to = to; redraw(); }

// Verdict and findings.
const SIGNS = {bad: "✖", warning: "▲", ok: "✔", inconclusive: "?"};
const LEVELS = {critical: "bad", error: "bad", warning: "warn", note: "dim"};
function verdict() {
  const {status, answer, looked, not_seen} = model.verdict, run = model.run;
  const found = section("verdict", `${SIGNS[status]} ${answer}${status === "inconclusive" ? ", but not everything was looked at" : ""}`, "");
  found.classList.add(status);
  const where = [run.selection.join("; "), `${model.began.slice(0, 10)} ${clock(0)} UTC, ${three(model.seconds)} s`].filter(Boolean).join(" · ");
  found.append(make("p", {}, make("code", {}, run.command.join(" ")), ` · ${where}`));
  found.append(make("p", {}, `${model.coverage.sentence}; ${looked}`));
  const also = [...new Set([...not_seen, ...model.coverage.lines])];
  if (also.length) {
    found.append(...also.slice(0, 3).map(text => make("p", {class: "warn"}, text)));
    if (also.length > 3) found.append(make("details", {}, make("summary", {}, `${number(also.length - 3)} more about what was not seen`), make("ul", {}, also.slice(3).map(text => make("li", {}, text)))));
  }
}
function findings() {
  const {list, left_out} = model.findings;
  if (!list.length) return;
  const own = memory("findings", {open: new Set()}), body = make("div"), found = section("findings", "Findings", "", body), about = make("small");
  found.querySelector("h2").append(about);
  const items = list.map(each => {
    const terms = Object.fromEntries([...each.terms].reverse());
    const item = make("details", {class: "finding"},
      make("summary", {"data-item": true}, make("span", {class: `level ${LEVELS[each.level]}`}, each.level),
        make("span", {}, make("strong", {}, each.message)),
        make("span", {class: "does"}, `${each.who ? `${each.who} · ` : ""}${each.seen}${terms.do ? ` · do: ${terms.do}` : ""}`)),
      make("dl", {}, [["rule", each.rule], ...each.terms, ...(each.step ? [["step", each.step]] : [])].map(([name, text]) => [make("dt", {}, name), make("dd", {}, name === "more" ? make("code", {}, text) : text)])),
      each.tables.map(([head, ...rows]) => make("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": `evidence: ${each.message}`}, make("table", {},
        make("thead", {}, make("tr", {}, head.map(name => make("th", {scope: "col"}, name)))), make("tbody", {}, rows.map(row => make("tr", {}, row.map(cell => make("td", {class: "mono"}, cell || "-")))))))),
      each.evidence.length ? make("pre", {}, each.evidence.map(row => JSON.stringify(row)).join("\n")) : null);
    item.open = own.open.has(each.fingerprint);
    on(item, "toggle", () => { own.open[item.open ? "add" : "delete"](each.fingerprint); });
    return {each, item, text: JSON.stringify([each.level, each.message, each.who, each.terms, each.rule]).toLowerCase()};
  });
  body.append(...items.map(({item}) => item));
  if (left_out) body.append(make("p", {class: "dim"}, `${count(left_out, "finding")} left out`));
  follow(() => {
    let shown = 0;
    for (const {each, item, text} of items) { item.hidden = !(has(text) && during(each.first, each.last)); shown += !item.hidden; }
    about.textContent = shown === list.length ? `${number(shown)}; each opens with its evidence` : `${number(shown)} of ${number(list.length)} match the filter`;
  });
}

// What a job was checked for.
function checks() {
  if (!model.checks.length) return;
  const cells = ([status, kind, name, text]) => [make("td", {class: {passed: "good", findings: "bad"}[status] || "warn"}, status), make("td", {}, kind), make("td", {class: "name"}, name), make("td", {}, text)];
  section("checks", "Checks", "", make("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "checks"}, make("table", {},
    make("thead", {}, make("tr", {}, ["result", "kind", "check", ""].map(name => make("th", {scope: "col"}, name)))), make("tbody", {}, model.checks.map(row => make("tr", {}, cells(row)))))));
}

// The timeline: rows a second by kind or by pod.
function timeline() {
  const line = model.timeline, seconds = line.step_ms / 1000;
  if (!line.series.length) return;
  const own = memory("timeline", {by: "kind", failed: false, off: new Set()}), off = own.off;
  const total = line.series.reduce((sum, each) => sum + each.rows, 0);
  const by = on(make("select", {"aria-label": "what the colours are"}, make("option", {value: "kind"}, "by kind"), make("option", {value: "pod"}, "by pod")), "change", () => { own.by = by.value; off.clear(); chart(); });
  by.value = own.by;
  const failing = pressed(own, "failed", "only failed", () => chart());
  const [from, to] = ["from", "to"].map(name => on(make("input", {type: "number", min: 0, max: Math.ceil(LENGTH / 1000), step: "any", "aria-label": `show ${name} second`, size: 6, placeholder: `${name} s`}), "change", span));
  function span() {
    if (!from.value && !to.value) return zoom(-Infinity, Infinity);
    zoom(from.value ? from.value * 1000 : 0, to.value ? to.value * 1000 : LENGTH);
  }
  const chips = make("div", {id: "chips"}), canvas = make("div", {id: "chart", role: "img"}), marks = make("ul", {id: "marks"});
  const others = LIVE ? 0 : Math.max(0, model.run.rows - total);
  const about = `${count(total, "event")}${others ? ` and ${count(others, "row")} of tables and snapshots` : ""} in ${three(model.seconds)} s, ${duration(line.step_ms * 1e6)} each column; drag to choose a part of the time`;
  section("timeline", "Timeline", about, make("div", {class: "bar"}, by, failing, from, to, chips), canvas, marks);
  if (line.gaps.length) marks.append(...line.gaps.slice(0, 20).map(gap => make("li", {class: "bad"}, `${clock(gap.from)} to ${clock(gap.to)} UTC: events of ${gap.node} are missing${gap.cause ? `: ${gap.cause}` : ""}`)));
  const lost = model.coverage.nodes.filter(node => Object.keys(node.lost).length);
  marks.append(...lost.map(node => make("li", {class: "bad"}, `${node.name} lost events: ${Object.entries(node.lost).map(([cause, n]) => `${cause} ${number(n)}`).join(", ")}`)));
  marks.append(...line.marks.slice(0, 30).map(mark => make("li", {}, `${clock(mark.ms)} UTC  ${mark.kind === "step" ? "step " : ""}${mark.text}`)));
  const more = Math.max(0, line.marks.length - 30) + line.marks_left_out;
  if (more) marks.append(make("li", {}, `${number(more)} more marks`));
  if (line.put_together) marks.append(make("li", {}, `${number(line.put_together)} pods and kinds with the fewest events are drawn as "other pods"`));
  const times = Array.from({length: line.bins}, (_, bin) => BEGAN / 1000 + bin * seconds);
  let plot = null;
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function sums() {
    const found = new Map();
    const onlyFailed = own.failed;
    const each = onlyFailed ? Object.entries(line.failed).map(([kind, counts]) => ({kind, pod: "all pods", counts})) : line.series;
    for (const {[by.value]: name, counts} of each) {
      const sum = found.get(name) || found.set(name, new Array(line.bins).fill(0)).get(name);
      counts.forEach((n, bin) => { sum[bin] += n; });
    }
    const ranked = [...found].map(([name, counts]) => ({name, counts, rows: counts.reduce((a, b) => a + b, 0)})).sort((a, b) => b.rows - a.rows);
    if (ranked.length <= MOST_KINDS + 1) return ranked;
    const rest = ranked.splice(MOST_KINDS), others = {name: `${number(rest.length)} others`, counts: new Array(line.bins).fill(0), rows: 0};
    for (const one of rest) { one.counts.forEach((n, bin) => { others.counts[bin] += n; }); others.rows += one.rows; }
    return [...ranked, others];
  }
  function chart() {
    const all = sums();
    chips.replaceChildren(...all.map((one, place) => {
      const mark = make("i");
      mark.style.background = COLOURS[place];
      return on(make("button", {type: "button", "aria-pressed": String(!off.has(one.name))}, mark, `${one.name} ${number(one.rows)}`), "click", () => { off.has(one.name) ? off.delete(one.name) : off.add(one.name); chart(); });
    }));
    const stacked = [], series = [{}], stack = new Array(line.bins).fill(0);
    all.forEach((one, place) => {
      if (off.has(one.name)) return;
      one.counts.forEach((n, bin) => { stack[bin] += n / seconds; });
      stacked.unshift(stack.map(value => value || null));
      series.splice(1, 0, {label: one.name, fill: COLOURS[place], stroke: COLOURS[place], width: 0, points: {show: false}, paths: uPlot.paths.bars({size: [1, Infinity], align: 1, gap: line.bins > 150 ? 0 : 1})});
    });
    canvas.setAttribute("aria-label", `events a second ${by.value === "pod" ? "by pod" : "by kind"}: ${all.map(one => `${one.name} ${number(one.rows)}`).join(", ")}`);
    if (plot) plot.destroy();
    const grid = {stroke: colour("--line"), width: 1}, text = colour("--dim"), font = "12px system-ui, sans-serif";
    plot = new uPlot({
      width: canvas.clientWidth || 800, height: 196, legend: {show: false}, padding: [8, 12, 0, 0],
      cursor: {drag: {x: true, y: false, setScale: false}, points: {show: false}, y: false},
      scales: {x: {time: false, range: () => [times[0], times[0] + LENGTH / 1000]}, y: {range: (_, low, high) => [0, Math.max(1, high) * 1.05]}},
      axes: [{stroke: text, font, grid: {show: false}, ticks: grid, space: 90, size: 34, values: (_, splits) => splits.map(at => clock(Math.round(at * 1000 - BEGAN), seconds < .5 && LENGTH < 20000 ? 1 : 0))},
        {stroke: text, font, grid, ticks: {show: false}, size: 62, values: (_, splits) => splits.map(n => `${n >= 1e6 ? `${n / 1e6}M` : n >= 1e4 ? `${n / 1e3}k` : n}/s`)}],
      series,
      hooks: {
        setSelect: [at => { if (at.select.width > 2) zoom(at.posToVal(at.select.left, "x") * 1000 - BEGAN, at.posToVal(at.select.left + at.select.width, "x") * 1000 - BEGAN); at.setSelect({left: 0, top: 0, width: 0, height: 0}, false); }],
        drawClear: [at => bands(at, line.gaps.map(gap => [gap.from, gap.to]), colour("--gap"), .22)],
        draw: [at => {
          if (!isWhole()) bands(at, [[-1e15, state.from], [state.to, 1e15]], colour("--back"), .78);
          at.ctx.save();
          at.ctx.strokeStyle = colour("--text");
          at.ctx.setLineDash([4, 4]);
          for (const mark of line.marks) {
            const x = Math.round(at.valToPos((BEGAN + mark.ms) / 1000, "x", true));
            if (x < at.bbox.left || x > at.bbox.left + at.bbox.width) continue;
            at.ctx.beginPath(); at.ctx.moveTo(x, at.bbox.top); at.ctx.lineTo(x, at.bbox.top + at.bbox.height); at.ctx.stroke();
          }
          at.ctx.restore();
        }],
      },
    }, [times, ...stacked], canvas);
  }
  function bands(at, spans, fill, alpha) {
    at.ctx.save();
    at.ctx.fillStyle = fill;
    at.ctx.globalAlpha = alpha;
    for (const [first, last] of spans) {
      const [left, right] = [first, last].map(ms => Math.min(at.bbox.left + at.bbox.width, Math.max(at.bbox.left, at.valToPos((BEGAN + ms) / 1000, "x", true))));
      if (right > left) at.ctx.fillRect(left, at.bbox.top, Math.max(2, right - left), at.bbox.height);
    }
    at.ctx.restore();
  }
  chart();
  drawn.timeline.push(() => plot.redraw(false));
  let width = canvas.clientWidth;
  new ResizeObserver(() => { if (canvas.clientWidth && canvas.clientWidth !== width) { width = canvas.clientWidth; plot.setSize({width, height: 196}); } }).observe(canvas);
}

// Processes, each below the one that started it.
function processes() {
  const {list, seen, failed} = model.processes;
  if (!list.length) return;
  const body = make("div", {class: "tree scroll", tabindex: 0, role: "region", "aria-label": "processes"}), about = make("small");
  const fold = on(make("button", {type: "button"}, "open all"), "click", () => { const open = fold.textContent === "open all"; for (const each of body.querySelectorAll("details")) each.open = open; fold.textContent = open ? "close all" : "open all"; });
  const own = memory("processes", {bad: false, open: new Map()}), bad = pressed(own, "bad", "only those that failed", redraw);
  section("processes", "Processes", "", make("div", {class: "bar"}, fold, bad), body).querySelector("h2").append(about);
  const below = new Map(), groups = new Map();
  for (const one of list) {
    one.text = `${one.command} ${one.pid} ${one.where} ${one.node} ${one.end} ${Object.values(one.did).map(did => did.most.map(([name]) => name).join(" ")).join(" ")}`.toLowerCase();
    if (one.parent !== null) (below.get(one.parent) || below.set(one.parent, []).get(one.parent)).push(one);
    else (groups.get(one.where) || groups.set(one.where, []).get(one.where)).push(one);
  }
  const isBad = one => one.end !== "" || one.failed > 0;
  function anyBelow(root, test) {
    const all = [root];
    while (all.length) { const one = all.pop(); if (test(one)) return true; all.push(...below.get(one.id) || []); }
    return false;
  }
  function lines(one) {
    return Object.entries(one.did).map(([kind, did]) => make("div", {class: "did"}, `${kind} ${number(did.times)}${did.times === 1 ? "" : "×"}: `, make("span", {class: "mono"}, did.most.map(([name, n]) => n > 1 ? `${name} ×${number(n)}` : name).join(", ")), did.seen > did.most.length ? `, ${number(did.seen - did.most.length)} more` : ""));
  }
  function item(one) {
    const children = below.get(one.id) || [], did = lines(one);
    const end = one.end ? make("span", {class: "bad"}, ` → ${one.end}`) : one.ended !== null ? make("span", {class: "dim"}, " → exit 0") : null;
    const found = make("details", {class: children.length || did.length ? "" : "leaf"},
      make("summary", {"data-item": true}, make("span", {class: "mono"}, one.command || "-"), end,
        make("span", {class: "dim"}, `  pid ${one.pid}${one.rows ? ` · ${count(one.rows, "event")}` : ""}${one.failed ? ` · ${number(one.failed)} failed` : ""}${one.children > children.length ? ` · ${number(one.children - children.length)} children not shown` : ""}`)), did);
    one.element = found;
    found.append(...children.map(item));
    const key = `${one.node} ${one.pid} ${one.began}`;
    found.open = own.open.get(key) ?? (list.length <= OPEN_TREES || anyBelow(one, other => other !== one && other.end !== ""));
    on(found.firstChild, "click", () => { own.open.set(key, !found.open); });
    return found;
  }
  // Pods first: what the node itself ran is rarely asked for.
  const tops = [...groups].sort(([a], [b]) => a.startsWith("node/") - b.startsWith("node/")).map(([where, roots]) => {
    const size = make("span", {class: "dim"});
    const element = make("details", {class: "group", open: true}, make("summary", {"data-item": true}, where, size), roots.map(item));
    return {element, roots, size};
  });
  body.append(...tops.map(({element}) => element));
  follow(() => {
    const onlyBad = own.bad;
    const fits = one => has(one.text) && (!onlyBad || isBad(one)) && during(one.began, one.ended ?? Infinity);
    const free = !state.words.length && !onlyBad && isWhole();
    let shown = 0;
    const set = one => {
      let any = fits(one);
      shown += any;
      for (const child of below.get(one.id) || []) any = set(child) || any;
      one.element.hidden = !any;
      if (any && !free) one.element.open = true;
      return any;
    };
    for (const {element, roots, size} of tops) { const any = roots.map(set).filter(Boolean).length; element.hidden = !any; size.textContent = `  ${count(roots.length, "tree")}`; }
    const all = seen > list.length ? `${number(list.length)} of ${count(seen, "program")}: those that failed, and those that did most` : count(seen, "program");
    about.textContent = `${free ? all : `${number(shown)} match the filter, of ${all}`}; ${number(failed)} ended with an error or a signal`;
  });
}

let told_ = () => {};
// The map is a page of its own (flows/page.html), and so is the graph, that of `profile --flame-graph`. The box that is
// chosen in the map is the page's fragment, so a link leads to it.
function heard(frame, data) {
  if (data === "pause") $("pause")?.click();
  else if (data.chosen !== undefined) history.replaceState(null, "", `#${encodeURIComponent(data.chosen || "map")}`);
  else if (data === "ready") {
    const tell = patch => frame.postMessage(patch, "*"), chosen = decodeURIComponent(location.hash.slice(1));
    tell({...NO_FLOWS, ...model.flows, whole: true, live: LIVE, chosen: chosen.includes("/") ? chosen : null});
    told_ = tell;
  }
}
function frame(id, title, name, about, height) {
  if ($(id)) { $(id).querySelector("small").textContent = about; return; }
  const found = make("iframe", {title}), box = section(id, title, about, found);
  if (height) found.style.height = `${height}px`;
  const load = () => { if (!found.srcdoc) found.srcdoc = frames[name]; };
  if (name === "map") on(window, "message", event => { if (event.source === found.contentWindow) heard(event.source, event.data); });
  const seen = new IntersectionObserver(entries => { if (entries.some(entry => entry.isIntersecting)) { seen.disconnect(); load(); } }, {rootMargin: "600px"});
  seen.observe(box);
  on(window, "beforeprint", load);
}
const NO_FLOWS = {places: {}, edges: [], processes: {}, trees: {}, events: [], left_out: 0, rows: 0, rows_left_out: 0};
function map() {
  if (FIRST !== "map" && !model.flows?.edges.length) return;
  const {edges, places, left_out, rows, rows_left_out} = model.flows || NO_FLOWS;
  const missing = [left_out && `${count(left_out, "connection")} between further places left out`, rows_left_out && `made of the first ${count(rows, "event")}; ${number(rows_left_out)} later ones are not in it`].filter(Boolean);
  frame("map", "Map", "map", [`${count(Object.keys(places).length, "place")}, ${count(edges.length, "connection")} between them`, ...missing].join("; "));
}

// Tables that can be sorted and searched.
function table(id, title, columns, rows, about, extra) {
  const head = make("tr"), body = make("tbody"), more = make("button", {type: "button"}), info = make("small");
  const found = section(id, title, "", extra, make("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": title}, make("table", {}, make("thead", {}, head), body)), more);
  found.querySelector("h2").append(info);
  const all = rows.map(row => ({row, text: columns.map(column => column.words ? row[column.at] : "").join(" ").toLowerCase()}));
  const own = memory(id, {by: columns.findIndex(column => column.first), down: true, most: MOST_ROWS});
  let by = columns[Math.max(0, own.by)], {down, most} = own;
  head.append(...columns.map(column => {
    column.head = make("th", {scope: "col", class: column.show ? "number" : null}, on(make("button", {type: "button"}, column.title), "click", () => { down = by === column ? !down : Boolean(column.show); by = column; Object.assign(own, {by: columns.indexOf(by), down}); draw(); }));
    return column.head;
  }));
  on(more, "click", () => { own.most = most += MORE_ROWS; draw(); });
  const times = columns.times;
  function draw() {
    const fitting = all.filter(({row, text}) => has(text) && (!times || during(row[times[0]], row[times[1]])));
    const value = row => row[by.at] ?? -1;
    fitting.sort((a, b) => { const [x, y] = [value(a.row), value(b.row)]; return (typeof x === "number" ? x - y : x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1); });
    body.replaceChildren(...fitting.slice(0, most).map(({row}) => make("tr", {"data-item": true, tabindex: -1}, columns.map(column => make("td", {class: [column.show ? "number" : column.kind || "name", column.bad && row[column.at] ? "bad" : ""].join(" ").trim()}, column.show ? row[column.at] === null ? "-" : column.show(row[column.at]) : row[column.at] || "-")))));
    for (const column of columns) column.head.setAttribute("aria-sort", column === by ? down ? "descending" : "ascending" : "none");
    more.hidden = fitting.length <= most;
    more.textContent = `show ${number(Math.min(MORE_ROWS, fitting.length - most))} more of ${number(fitting.length)}`;
    const free = !state.words.length && isWhole();
    info.textContent = [free ? about : `${number(fitting.length)} match the filter, of ${about}`, isWhole() ? "" : "numbers are of the whole run"].filter(Boolean).join("; ");
  }
  follow(draw);
}
const words = (at, title, kind) => ({at, title, kind, words: true});
const numbers = (at, title, more) => ({at, title, show: number, ...more});
function told(part) {
  const left = part.seen - part.rows.length;
  return [left > 0 ? `${number(part.rows.length)} of ${count(part.seen, "entry").replace("entrys", "entries")}: those that failed, and the most frequent of each workload` : `${number(part.seen)}`,
    part.folded ? `${count(part.folded, "event")} of further entries were put together by directory or under "…"` : ""].filter(Boolean).join("; ");
}
// Names of columns, then count, failed, first, last, mean, most.
function ofRows(id, title, part, kinds, amounts, extra) {
  if (!part.rows.length) return;
  const n = part.columns.length;
  const columns = [...part.columns.map((name, at) => words(at, name, kinds[name])), numbers(n, "events", {first: true}), numbers(n + 1, "failed", {bad: true})];
  if (amounts) columns.push({at: n + 4, title: "mean", show: duration}, {at: n + 5, title: "max", show: duration});
  columns.push({at: n + 2, title: "first", show: ms => clock(ms)}, {at: n + 3, title: "last", show: ms => clock(ms)});
  columns.times = [n + 2, n + 3];
  table(id, title, columns, part.rows, told(part), extra);
}
function connections() {
  if (!model.flows) return;
  const name = key => { const place = model.flows.places[key]; return place.group ? `${place.group}/${place.name}` : place.name; };
  const rows = model.flows.edges.flatMap(edge => edge.ports.map((port, place) => [name(edge.from), name(edge.to), port.name, edge.processes.join(", "), port.flows, port.dropped, port.failed, place ? null : edge.sent, place ? null : edge.received, place ? null : edge.requests]));
  const bytes = n => { for (const [size, unit] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) if (n >= size) return three(n / size) + unit; return `${n}B`; };
  const columns = [words(0, "client"), words(1, "server"), words(2, "port"), words(3, "processes"), numbers(4, "flows", {first: true}), numbers(5, "dropped", {bad: true}), numbers(6, "failed", {bad: true}), {at: 7, title: "out", show: bytes}, {at: 8, title: "in", show: bytes}, numbers(9, "requests")];
  table("connections", "Connections", columns, rows, `${number(rows.length)}; bytes and requests are those of all ports between two places`);
}
function histogram(name, latency) {
  if (!latency) return null;
  const step = Math.ceil(latency.counts.length / 18), sums = [], bars = [];
  for (let at = 0; at < latency.counts.length; at += step) sums.push([at, latency.counts.slice(at, at + step).reduce((a, b) => a + b, 0)]);
  const most = Math.max(...sums.map(([, n]) => n));
  for (const [at, n] of sums) {
    const bar = make("b"), box = make("div", {}, bar);
    bar.style.width = `${n ? Math.max(1, 100 * n / most) : 0}%`;
    bar.style.display = "block";
    bars.push(make("span", {}, `from ${duration(latency.begins[at])}`), box, make("span", {}, number(n)));
  }
  return make("div", {class: "lists"},
    make("div", {}, make("strong", {}, `${name} latency`), make("p", {}, `half within ${duration(latency.p50)}, 95 % within ${duration(latency.p95)}, 99 % within ${duration(latency.p99)}`),
      make("p", {class: "dim"}, `${count(latency.count, "answer")}${name === "HTTP" ? ", as clients and servers saw them" : ""}${latency.without ? `; ${number(latency.without)} without an answer or a time` : ""}`)),
    make("div", {class: "histogram", role: "img", "aria-label": `histogram of ${name} latencies`}, bars));
}

// The rows: a list that draws only what is seen.
function rows() {
  const {kinds, seen} = model.rows;
  if (!kinds.length) return;
  const most = kinds.reduce((sum, kind) => sum + kind.rows.length, 0);
  const all = kinds.flatMap(kind => kind.rows.map(([ms, bad, ...cells]) => ({ms, bad, kind, cells, text: `${kind.kind} ${cells.join(" ")}`.toLowerCase()}))).sort((a, b) => (a.ms ?? 0) - (b.ms ?? 0));
  const choice = on(make("select", {"aria-label": "kind of rows"}, make("option", {value: ""}, "all kinds"), kinds.map((kind, place) => make("option", {value: place}, `${kind.command}, ${number(kind.seen)}`))), "change", () => { own.kind = choice.value === "" ? "" : kinds[choice.value].command; draw(); });
  const own = memory("rows", {kind: "", failed: false, column: "", value: ""}), bad = pressed(own, "failed", "only failed", () => draw());
  const columns = [...new Set(kinds.flatMap(kind => kind.columns))].sort();
  const column = on(make("select", {"aria-label": "column to look in"}, make("option", {value: ""}, "any column"), columns.map(name => make("option", {value: name}, name))), "change", () => { own.column = column.value; draw(); });
  const value = on(make("input", {type: "search", placeholder: "has the text", "aria-label": "text that the column has", value: own.value}), "input", () => { own.value = value.value; draw(); });
  column.value = columns.includes(own.column) ? own.column : "";
  const inColumn = (row, wanted) => row.kind.columns.some((name, at) => (!column.value || name === column.value) && row.cells[at].toLowerCase().includes(wanted));
  choice.value = kinds.findIndex(kind => kind.command === own.kind);
  if (choice.selectedIndex < 0) choice.value = "";
  const copied = make("span", {class: "dim", role: "status"});
  const copy = on(make("button", {type: "button"}, "copy as JSON"), "click", async () => {
    const text = shown.map(asJson).join("\n");
    try { await navigator.clipboard.writeText(text); copied.textContent = `${count(shown.length, "row")} copied`; }
    catch { copied.textContent = "the browser refuses; select the rows instead"; }
  });
  const head = make("div", {class: "head mono"}), body = make("div", {class: "rows mono"}), list = make("div", {id: "list", tabindex: 0, role: "region", "aria-label": "rows"}, head, body), info = make("small");
  section("rows", "Rows", "", make("div", {class: "bar"}, choice, bad, column, value, copy, copied), list).querySelector("h2").append(info);
  let shown = [], widths = [];
  const asJson = row => JSON.stringify({kind: row.kind.kind, timestamp: row.ms === null ? null : new Date(BEGAN + row.ms).toISOString(), ...Object.fromEntries(row.kind.columns.map((name, at) => [name, row.cells[at]]))});
  const one = () => choice.value === "" ? null : kinds[choice.value];
  const parts = row => [row.ms === null ? "-" : clock(row.ms, 3), ...(one() ? row.cells : [row.kind.kind, row.kind.columns.map((name, at) => row.cells[at] === "-" ? "" : `${name.toLowerCase()}=${row.cells[at]}`).filter(Boolean).join("  ")])];
  const cell = (text, place) => { const found = make("span", {}, text); found.style.width = widths[place] ? `${widths[place]}ch` : ""; return found; };
  function draw() {
    const only = one(), {failed} = own, wanted = value.value.toLowerCase();
    shown = all.filter(row => (!only || row.kind === only) && (!failed || row.bad) && (!wanted || inColumn(row, wanted)) && has(row.text) && during(row.ms));
    const titles = ["time", ...(only ? only.columns : ["kind", ""])], some = shown.slice(0, 500).map(parts);
    widths = titles.map((title, place) => !only && place === 2 ? 0 : Math.min(60, Math.max(title.length, ...some.map(row => row[place].length)) + 1));
    head.replaceChildren(...titles.map(cell));
    body.style.height = `${shown.length * ROW}px`;
    body.style.width = only ? `calc(${widths.reduce((a, b) => a + b, 0)}ch + ${14 * widths.length + 20}px)` : "";
    info.textContent = `${shown.length === all.length ? "" : `${number(shown.length)} match the filter, of `}${number(most)} rows${most < seen ? `, ${LIVE ? "the last ones of" : "chosen evenly from"} ${number(seen)}, with more of those that failed` : ""}`;
    list.scrollTop = 0;
    window_();
  }
  function window_() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 8), last = Math.min(shown.length, first + Math.ceil(list.clientHeight / ROW) + 20);
    body.replaceChildren(...shown.slice(first, last).map((row, place) => {
      const found = make("div", {class: row.bad ? "row bad" : "row"}, parts(row).map(cell));
      found.style.top = `${(first + place) * ROW}px`;
      return found;
    }));
  }
  on(list, "scroll", window_);
  follow(draw);
}

// How it was made.
function made() {
  const run = model.run, lines = [["command", make("code", {}, run.command.join(" "))], ...(run.recorded_by.length ? [["recorded by", `kubectl gadget ${run.recorded_by.join(", ")}`]] : []), ["page by", model.made_by], ...(run.files.length ? [["recordings", run.files.join(", ")]] : []), ["selection", run.selection.join("; ") || "-"]];
  if (run.filters.length) lines.push(["filter", make("code", {}, run.filters.join("; "))]);
  lines.push(["coverage", model.coverage.sentence], ...model.coverage.doubts.map(text => ["not seen", make("span", {class: "warn"}, text)]));
  lines.push(["nodes", model.coverage.nodes.map(node => make("div", {}, node.attached === null ? `${node.name}: not traced: ${node.why}` : `${node.name}: from ${clock(node.attached)} to ${clock(node.until)} UTC${node.gap_seconds ? `, ${node.gap_seconds} s missing` : ""}${Object.keys(node.lost).length ? `, lost ${Object.entries(node.lost).map(([cause, n]) => `${number(n)} (${cause})`).join(", ")}` : ", lost 0"}`))]);
  lines.push(["gadgets", run.gadgets.map(gadget => make("div", {}, `${gadget.command}: ${count(gadget.rows, "row")}${Object.keys(gadget.parameters).length ? ` (${Object.entries(gadget.parameters).map(([name, value]) => value === true ? `--${name}` : value === false ? `--no-${name}` : `--${name} ${value}`).join(", ")})` : ""}`))]);
  const empty = [["findings", model.findings.list.length], ["processes", model.processes.list.length], ["files", model.files.rows.length], ["flows", model.flows], ["DNS", model.dns.rows.length], ["HTTP", model.http.rows.length], ["a profile", model.profile]].filter(([, has]) => !has).map(([name]) => name);
  if (empty.length) lines.push(["without", `${empty.join(", ")}: nothing of it was recorded`]);
  section("made", "How it was made", "", make("dl", {}, lines.map(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])));
  $("foot").replaceChildren(...[["/", "filter"], ["j", "next"], ["k", "before"], ["← →", "close, open"], ["Esc", "back"]].flatMap(([key, what]) => [make("kbd", {}, key), ` ${what}  `]));
}

// The parts, and what of the model each is made of.
const BUILT = {
  verdict: [verdict, "verdict", "coverage", "run", "seconds"], findings: [findings, "findings"], checks: [checks, "checks"], timeline: [timeline, "timeline", "coverage", "began"],
  processes: [processes, "processes"], map: [map, "flows"], files: [() => ofRows("files", "Files", model.files, {path: "path mono"}), "files"],
  connections: [connections, "flows"], dns: [() => ofRows("dns", "DNS", model.dns, {name: "path"}, true, histogram("DNS", model.dns.latency)), "dns"],
  http: [() => ofRows("http", "HTTP", model.http, {target: "path"}, true, histogram("HTTP", model.http.latency)), "http"],
  profile: [() => { if (model.profile && frames.flames) frame("profile", "Profile", "flames", [`kubectl gadget ${model.profile.title}`, model.profile.left_out ? `${number(model.profile.left_out)} narrow calls left out` : ""].filter(Boolean).join("; "), 520); }],
  rows: [rows, "rows"], made: [made, "run", "coverage"],
};
function build(id) { building = id; drawn[id] = []; BUILT[id][0](); }
ORDER.forEach(build);
for (const query of ["(prefers-color-scheme: dark)", "print"]) on(matchMedia(query), "change", () => build("timeline"));

// A run that goes on: the server sends the parts that changed. A part is drawn again at most once a second, one part at a
// time, and only where it can be seen; what the user does in it stays.
const EACH_MS = 1000, MOST_EVENTS = 1000;
const stale = new Map(), builtAt = {};
let paused = false, held = null, isHolding = false, next = 0;
function rebuild(id) {
  const before = $(id), within = "summary, button, select, input, [tabindex]";
  const scrolled = before ? [...before.querySelectorAll(".scroll, #list, #marks")].map(one => [one.scrollTop, one.scrollLeft]) : [];
  const focus = before ? [...before.querySelectorAll(within)].indexOf(document.activeElement) : -1;
  build(id);
  const found = $(id);
  if (!found) return;
  [...found.querySelectorAll(".scroll, #list, #marks")].forEach((one, at) => { if (scrolled[at]) [one.scrollTop, one.scrollLeft] = scrolled[at]; });
  if (focus >= 0) found.querySelectorAll(within)[focus]?.focus({preventScroll: true});
}
function isSeen(id) {
  const box = $(id)?.getBoundingClientRect();
  return !box || (box.bottom > -200 && box.top < innerHeight + 200);
}
function isUsed(id) {
  const chosen = getSelection(), active = document.activeElement;
  return isHolding || (!chosen.isCollapsed && $(id)?.contains(chosen.anchorNode)) || (active?.matches("section input") && $(id)?.contains(active));
}
function work() {
  next = 0;
  if (paused || document.hidden) return;
  const now = performance.now(), ready = [...stale.keys()].filter(id => isSeen(id) && !isUsed(id)), due = ready.find(id => now - (builtAt[id] || 0) >= EACH_MS);
  if (due) { stale.delete(due); builtAt[due] = now; rebuild(due); }
  if (ready.length > (due ? 1 : 0)) next = setTimeout(work, due ? 40 : 250);
}
const soon = () => { next ||= setTimeout(work, 20); };
function merge(patch) {
  const flows = model.flows ||= structuredClone(NO_FLOWS);
  const known = new Map((patch.whole ? [] : flows.edges).map(edge => [`${edge.from} ${edge.to}`, edge])), gone = new Set(patch.vanished || []);
  for (const edge of patch.edges) known.set(`${edge.from} ${edge.to}`, edge);
  for (const key of gone) known.delete(key);
  if (gone.size) { const ends = new Set([...known.values()].flatMap(edge => [edge.from, edge.to])); for (const part of ["places", "processes", "trees"]) for (const key of Object.keys(flows[part])) if (!ends.has(key)) delete flows[part][key]; }
  for (const part of ["places", "processes", "trees"]) Object.assign(flows[part], patch[part]);
  flows.edges = [...known.values()];
  // The first message has all events, and the next one some of them again.
  const before = patch.whole ? [] : flows.events, last = before.length ? before[before.length - 1].id : 0;
  flows.events = [...before, ...patch.events.filter(event => event.id > last)].slice(-MOST_EVENTS);
  flows.left_out = patch.left_out;
}
function take(message) {
  const changed = new Set(Object.keys(message.model));
  if (message.flows) { merge(message.flows); changed.add("flows"); if (!paused) told_(message.flows); }
  const {flows, ...parts} = message.model;
  if (paused) Object.assign(held, parts); else { Object.assign(model, parts); measure(); }
  for (const [id, [, ...members]] of Object.entries(BUILT)) if (members.some(member => changed.has(member))) stale.set(id, true);
  soon();
}
if (LIVE) {
  const said = make("span", {id: "live", role: "status"}, "connecting"), links = [["report", "save as report"], ["recording", "save recording"]].map(([path, text]) => make("a", {id: `save-${path}`, class: "button", href: path + location.search, download: true}, text));
  const pause = on(make("button", {id: "pause", type: "button", "aria-pressed": "false", "aria-keyshortcuts": "p"}, "pause"), "click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "go on" : "pause";
    if (paused) held = {};
    else { Object.assign(model, held); measure(); told_({...model.flows, whole: true}); soon(); }
  });
  $("span").before(said, pause, ...links);
  on(window, "pointerdown", () => { isHolding = true; });
  for (const type of ["pointerup", "pointercancel"]) on(window, type, () => { isHolding = false; });
  on(window, "scroll", soon);
  on(document, "visibilitychange", soon);
  // All addresses are beside the page's own, which may be below a path of a proxy.
  const socket = new WebSocket(new URL(`live${location.search}`, location.href.replace(/^http/, "ws")));
  on(socket, "message", event => {
    take(JSON.parse(event.data));
    said.textContent = model.starting || "live";
    $("save-recording").hidden = !model.has_recording;
  });
  on(socket, "close", () => { said.textContent = "the run has ended"; said.className = "bad"; for (const link of links) link.remove(); });
}

// Keys.
const items = () => [...main.querySelectorAll("[data-item]")].filter(item => item.offsetParent !== null);
function step(by) {
  const all = items(), at = all.indexOf(document.activeElement);
  let next = at + by;
  if (at < 0) next = by > 0 ? all.findIndex(item => item.getBoundingClientRect().bottom > 60) : all.length - 1;
  const found = all[Math.min(all.length - 1, Math.max(0, next))];
  if (found) { found.focus(); found.scrollIntoView({block: "nearest"}); }
}
on(window, "keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const active = document.activeElement, isItem = active && active.matches("[data-item]"), details = isItem && active.closest("details");
  if (event.key === "Escape") {
    if (active === $("filter") && !$("filter").value) active.blur();
    else if ($("filter").value) { $("filter").value = ""; redraw(); }
    else if (!isWhole()) zoom(-Infinity, Infinity);
    else active.blur();
    return;
  }
  if (active && active.matches("input, select")) return;
  const keys = {p: () => $("pause")?.click(), "/": () => $("filter").focus(), j: () => step(1), k: () => step(-1)};
  if (isItem) Object.assign(keys, {ArrowDown: () => step(1), ArrowUp: () => step(-1)});
  if (details) Object.assign(keys, {ArrowRight: () => { details.open = true; }, ArrowLeft: () => {
    if (details.open && !details.classList.contains("leaf")) details.open = false;
    else { const above = details.parentElement.closest("details"); if (above) above.firstElementChild.focus(); }
  }});
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
on(window, "beforeprint", () => { for (const each of main.querySelectorAll(".finding")) each.open = true; });
document.documentElement.dataset.ready = "yes";
})();
