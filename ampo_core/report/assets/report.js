"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const hidden = new Set(data.hidden);
  const touch = matchMedia("(pointer: coarse)").matches;
  let showRaw = true;

  // --- colours: a figure names them by place, the theme says what they are -------------------------------------
  const styled = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  function colour(token) {
    const [name, opacity] = token.slice(1).split("/");
    const value = styled(/^\d+$/.test(name) ? `--s${name}` : `--${name}`);
    if (opacity === undefined) return value;
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(value.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${opacity})`;
  }
  function painted(value) {
    if (typeof value === "string") return /^\$(\d+|text|muted)(\/[\d.]+)?$/.test(value) ? colour(value) : value;
    if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(painted);
    if (value === null || typeof value !== "object") return value;
    const literal = ["name", "x", "ticktext"];
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, literal.includes(key) ? item : painted(item)]),
    );
  }

  // --- figures --------------------------------------------------------------------------------------------------
  const specs = new Map(data.figures.map((figure) => [figure.id, figure]));
  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  function trace(item) {
    const meta = item.meta || {};
    const off = hidden.has(meta.run) || (meta.raw && !showRaw);
    // A trace's name is markup to the library; the name of a run or a teacher is text.
    return { hoverlabel: { namelength: 28 }, ...painted(item), name: escaped(item.name), visible: !off };
  }
  function layout(figure, box) {
    const narrow = box.clientWidth < 480;
    const axis = (own) => ({
      gridcolor: styled("--grid"), linecolor: styled("--line"), zerolinecolor: styled("--line"), automargin: true,
      exponentformat: "power", tickfont: { size: 11 }, fixedrange: touch, nticks: narrow ? 5 : 8,
      spikecolor: styled("--muted"), spikethickness: 1, ...own,
      title: { standoff: 6, font: { size: 12 }, ...(own.title || {}) },
    });
    const own = painted(figure.layout);
    return {
      margin: { l: 46, r: 12, t: 10, b: 38 }, hovermode: "x unified", showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: touch ? false : "zoom",
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 12, color: styled("--muted") },
      hoverlabel: { bgcolor: styled("--card"), bordercolor: styled("--line"), font: { color: styled("--text"), size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: styled("--muted"), activecolor: styled("--text") },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12, color: styled("--text") } },
      ...own, xaxis: axis(own.xaxis || {}), yaxis: axis(own.yaxis || {}),
    };
  }
  const settings = {
    // By default the library offers to send a chart to its maker's server.
    showSendToCloud: false, plotlyServerURL: "", displaylogo: false, responsive: true, displayModeBar: !touch,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "pan2d", "zoomIn2d", "zoomOut2d"],
  };
  const boxes = [...document.querySelectorAll(".plot")];
  // What stands in closed details has a width all the same: browsers hide it in another way.
  const seen = (box) => box.clientWidth > 0 && box.closest("details:not([open])") === null;
  async function draw(box) {
    const figure = specs.get(box.dataset.figure);
    await window.Plotly.react(box, figure.data.map(trace), layout(figure, box), settings);
    box.dataset.drawn = "yes";
  }
  const drawAll = () => (window.Plotly ? Promise.all(boxes.filter(seen).map(draw)) : Promise.resolve());

  async function unpacked() {
    const packed = document.getElementById("library");
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    packed.remove();
  }
  function trouble(text) {
    const box = document.getElementById("trouble");
    box.textContent = text;
    box.hidden = false;
  }

  // --- theme: as the system says, until one is chosen -----------------------------------------------------------
  const names = { "": "auto", light: "light", dark: "dark" };
  const button = document.getElementById("theme");
  function setTheme(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    button.querySelector("span").textContent = names[theme];
    button.setAttribute("aria-label", `Colours: ${theme || "automatic"}`);
  }
  function stored(value) {
    try {
      if (value === undefined) return localStorage.getItem("ampo-report-theme") || "";
      localStorage.setItem("ampo-report-theme", value);
    } catch { /* A browser may refuse storage to a file; the choice then lasts as long as the page. */ }
    return "";
  }
  button.addEventListener("click", () => {
    const order = Object.keys(names);
    const next = order[(order.indexOf(root.dataset.theme || "") + 1) % order.length];
    setTheme(next);
    stored(next);
    drawAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  // --- which runs, and whether single steps are drawn -----------------------------------------------------------
  const views = [];
  for (const chip of document.querySelectorAll(".chip")) {
    const run = Number(chip.dataset.run);
    chip.setAttribute("aria-pressed", String(!hidden.has(run)));
    chip.addEventListener("click", () => {
      if (hidden.has(run)) hidden.delete(run);
      else hidden.add(run);
      chip.setAttribute("aria-pressed", String(!hidden.has(run)));
      for (const view of views) view();
      drawAll();
    });
  }
  const raw = document.getElementById("raw");
  if (raw) raw.addEventListener("change", () => { showRaw = raw.checked; drawAll(); });
  for (const details of document.querySelectorAll("details")) {
    details.addEventListener("toggle", () => { if (details.open) drawAll(); });
  }
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("section > details, .group")) details.open = true;
    setTheme("light");
    drawAll();
  });
  addEventListener("afterprint", () => { setTheme(stored()); drawAll(); });

  // --- rollouts -------------------------------------------------------------------------------------------------
  const PAGE = 24;
  function node(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  const number = (value) => String(Number(value.toPrecision(3)));
  const isRight = (row) => (row.correct === null ? row.reward >= data.threshold : row.correct);
  function rollout(row) {
    const item = node("li", row.teacher ? "rollout teacher" : "rollout");
    const place = data.teachers.indexOf(row.who);
    if (row.teacher && place >= 0) item.style.setProperty("--who", `var(--s${place % 7})`);
    const top = node("div", "top");
    const right = isRight(row) ? "right" : "wrong";
    top.append(node("span", "who", row.who));
    const mark = right === "right" ? "✓" : "✗";
    top.append(node("span", `reward ${right}`, `${mark} reward ${number(row.reward)}`));
    if (row.score !== null) top.append(node("span", "score", `score ${number(row.score)}`));
    if (row.truth !== null) top.append(node("span", "truth", `truth ${row.truth}`));
    if (row.trained) top.append(node("span", "trained", `trained as ${row.trained} tokens`));
    top.append(node("span", "place", row.place));
    item.append(top);
    if (row.question !== null) {
      const question = node("p", "question");
      question.append(node("b", "", "Q "), row.question);
      item.append(question);
    }
    if (row.read) {
      const read = node("details", "read");
      read.append(node("summary", "", "as the model reads it"), node("p", "question", row.read));
      item.append(read);
    }
    const text = node("p", "text short", row.given || row.text ? undefined : "(empty)");
    if (row.given) text.append(node("mark", "given", row.text.slice(0, row.given)));
    text.append(row.text.slice(row.given));
    item.append(text);
    if (row.text.length > 240 || row.text.split("\n").length > 3) {
      const more = node("button", "more", "whole text");
      more.type = "button";
      more.setAttribute("aria-expanded", "false");
      more.addEventListener("click", () => {
        const short = text.classList.toggle("short");
        more.textContent = short ? "whole text" : "less";
        more.setAttribute("aria-expanded", String(!short));
      });
      item.append(more);
    }
    if (row.cut) item.append(node("p", "note", `${row.cut.toLocaleString("en")} more characters are not in this page`));
    return item;
  }
  function choice(title, options, changed) {
    const label = node("label", "", title);
    const select = node("select");
    select.append(...options.map(([value, text]) => new Option(text, value)));
    select.addEventListener("change", changed);
    label.append(select);
    return [label, select];
  }
  function rollouts(box) {
    let limit = PAGE;
    const update = () => { limit = PAGE; show(); };
    const distinct = (key) => [...new Set(data.rows.map((row) => row[key]))].map((value) => [value, value]);
    const [placeBox, place] = choice("where", [["", "all"], ...distinct("place")], update);
    const kinds = data.rows.some((row) => row.teacher) ? [["*teacher", "all teachers"]] : [];
    const [whoBox, who] = choice("source", [["", "all"], ...kinds, ...distinct("who")], update);
    const graded = data.threshold === null;
    const halves = (right, wrong) => [["", "all"], ["right", right], ["wrong", wrong]];
    const [rewardBox, reward] = graded
      ? choice("grade", halves("correct", "wrong"), update)
      : choice("reward", halves(`at least ${number(data.threshold)}`, `below ${number(data.threshold)}`), update);
    const searchBox = node("label", "", "text");
    const search = node("input");
    search.type = "search";
    search.addEventListener("input", update);
    searchBox.append(search);
    const count = node("output");
    const filters = node("div", "filters");
    filters.append(placeBox, whoBox, rewardBox, searchBox, count);
    const list = node("ul", "rollouts");
    const more = node("button", "more", "more");
    more.type = "button";
    more.addEventListener("click", () => { limit += PAGE; show(); });
    function wanted(row) {
      const right = isRight(row);
      const source = who.value === "*teacher" ? row.teacher : !who.value || row.who === who.value;
      const words = search.value.toLowerCase();
      const texts = `${row.question || ""}\n${row.truth || ""}\n${row.text}`.toLowerCase();
      return source && (!place.value || row.place === place.value) && texts.includes(words)
        && (!reward.value || (reward.value === "right") === right);
    }
    function show() {
      const found = data.rows.filter(wanted);
      list.replaceChildren(...found.slice(0, limit).map(rollout));
      count.textContent = `${Math.min(limit, found.length)} of ${found.length} shown`;
      more.hidden = found.length <= limit;
    }
    box.append(filters, list, more);
    show();
  }

  // --- the same question, side by side --------------------------------------------------------------------------
  function sideBySide(box) {
    const { columns, places } = data.sides[box.dataset.sides];
    const shown = () => columns.map((_, i) => i).filter((i) => !hidden.has(columns[i][1]));
    const share = ([right, all]) => right / all;
    const differ = (place) => new Set(shown().filter((i) => place.counts[i][1]).map((i) => share(place.counts[i]))).size > 1;
    const [pickBox, pick] = choice("question", [], show);
    const [onlyBox, only] = choice("which", [["", "all"], ["differ", "where they differ"]], fill);
    const step = (text, label, by) => {
      const button = node("button", "", text);
      button.type = "button";
      button.setAttribute("aria-label", label);
      button.addEventListener("click", () => { pick.selectedIndex += by; show(); });
      return button;
    };
    const before = step("‹", "the question before", -1), after = step("›", "the next question", 1);
    const count = node("output"), asked = node("div", "asked"), grid = node("div", "columns");
    const filters = node("div", "filters");
    pickBox.className = "pick";
    filters.append(before, pickBox, after, onlyBox, count);
    function fill() {
      const found = places.filter((place) => !only.value || differ(place));
      const chosen = pick.value;
      pick.replaceChildren(...found.map((place) => new Option(place.label, places.indexOf(place))));
      if (found.some((place) => String(places.indexOf(place)) === chosen)) pick.value = chosen;
      show();
    }
    function show() {
      const place = places[Number(pick.value)];
      const there = pick.selectedIndex >= 0;
      count.textContent = there ? `${pick.selectedIndex + 1} of ${pick.length}` : "none";
      before.disabled = pick.selectedIndex <= 0;
      after.disabled = pick.selectedIndex >= pick.length - 1;
      asked.replaceChildren();
      grid.replaceChildren();
      if (!there) return;
      if (place.question !== null) asked.append(node("p", "question", place.question));
      if (place.truth !== null) asked.append(node("p", "note", `truth ${place.truth}`));
      for (const i of shown()) grid.append(column(columns[i], place.counts[i], place.put_in[i], place.cells[i]));
    }
    function column([name, order], [right, all], putIn, rows) {
      const made = node("div", "column");
      const head = node("h3", "", name);
      if (order !== null) head.style.setProperty("border-color", `var(--s${order % 7})`);
      head.append(node("span", "note", all ? `${right} of ${all} right` : "no answer of its own is written down"));
      made.append(head);
      const several = (found, count) => {
        const list = node("ul", "rollouts");
        list.append(...found.map(rollout));
        made.append(list);
        if (count > found.length) made.append(node("p", "note", `and ${count - found.length} more`));
      };
      several(rows.filter((row) => !row.teacher), all);
      if (putIn) {
        made.append(node("p", "note", `put in by guidance, not counted: ${putIn}`));
        several(rows.filter((row) => row.teacher), putIn);
      }
      return made;
    }
    views.push(fill);
    box.append(filters, asked, grid);
    fill();
  }

  setTheme(stored());
  for (const box of document.querySelectorAll(".sides")) sideBySide(box);
  const table = document.getElementById("rollout-table");
  if (table) rollouts(table);
  if (typeof DecompressionStream === "undefined") {
    trouble("The figures need a browser of 2023 or later.");
  } else if (boxes.length) {
    unpacked().then(drawAll).catch((error) => trouble(`The figures could not be drawn: ${error.message}`))
      .finally(() => { root.dataset.ready = "yes"; });
  } else {
    root.dataset.ready = "yes";
  }
})();
