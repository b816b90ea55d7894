// Sort and filter of the comparison page. The page is complete without it; it only moves and hides articles.
// In: the JSON in #data. scores[system][metric][image]: a number, or null where there is none.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const list = byId("picture-list");
  const articles = [...list.children];
  const sortNotes = articles.map((article) => article.querySelector(".sorted-by"));
  const controls = {
    q: byId("filter-text"), differ: byId("filter-different"), sort: byId("sort"),
    metric: byId("sort-metric"), system: byId("sort-system"), base: byId("sort-base"),
  };
  const defaults = Object.fromEntries(Object.entries(controls).map(([key, control]) => [key, read(control)]));
  const wait = 150; // ms from the last key to the filter
  let texts = null; // what the filter looks in, gathered at its first use
  let shownOrder = "";
  let timer = 0;

  function read(control) {
    if (!control) return "";
    return control.type === "checkbox" ? (control.checked ? "1" : "") : control.value;
  }

  function write(control, value) {
    if (!control) return;
    if (control.type === "checkbox") control.checked = value === "1";
    else if (control.tagName !== "SELECT") control.value = value;
    else if ([...control.options].some((option) => option.value === value)) control.value = value;
  }

  const plain = (text) => text.normalize("NFC").toLowerCase().replace(/\s+/g, " ").trim();

  function gatherTexts() {
    return articles.map((article) =>
      plain([...article.querySelectorAll("[data-text]")].map((part) => part.textContent).join(" \n ")));
  }

  // 'dog "red ball"' -> ["red ball", "dog"]; a quotation mark left open counts to the end
  function termsOf(query) {
    const terms = [];
    const words = query.replace(/[“”„]/g, '"').replace(/"([^"]*)"?/g, (_, phrase) => (terms.push(phrase), " "));
    return [...terms, ...words.split(/\s+/)].map(plain).filter(Boolean);
  }

  function filter() {
    const terms = termsOf(controls.q.value);
    const onlyDifferent = Boolean(read(controls.differ));
    if (terms.length && !texts) texts = gatherTexts();
    let count = 0;
    articles.forEach((article, image) => {
      const shown = (!onlyDifferent || data.apart[image] > 0) && terms.every((term) => texts[image].includes(term));
      article.hidden = !shown;
      count += shown;
    });
    byId("clear").disabled = !terms.length && !onlyDifferent;
    return count;
  }

  // What to sort by: for each image a number (null: last) and a text to show, and how to say it
  function ordering() {
    const kind = controls.sort.value;
    const place = Math.max(0, data.metrics.findIndex((metric) => metric.name === controls.metric.value));
    const metric = data.metrics[place];
    const indexOf = (control) => Math.max(0, data.systems.findIndex((system) => system.letter === read(control)));
    const [system, base] = [indexOf(controls.system), indexOf(controls.base)];
    const [letter, baseLetter] = [data.systems[system].letter, data.systems[base].letter];
    const values = data.scores[system][place];
    const round = (value) => value.toLocaleString("en", { minimumFractionDigits: metric.decimals, maximumFractionDigits: metric.decimals });
    const signed = (value) => (value > 0 ? "+" : "") + round(value).replace(/^-/, "\u2212");
    const which = `${metric.label}, ${letter}`;
    switch (kind) {
      case "gain": case "loss": {
        const others = data.scores[base][place];
        const changes = values.map((value, image) => (value === null || others[image] === null ? null : value - others[image]));
        const label = `${letter} \u2212 ${baseLetter} in ${metric.label}`;
        return { values: changes, down: kind === "gain", words: `${label}, ${kind === "gain" ? "highest" : "lowest"} first`, metric: place,
          show: (image) => `${label}: ${changes[image] === null ? "n/a" : signed(changes[image])}` };
      }
      case "high": case "low":
        return { values, down: kind === "high", words: `${which}, ${kind === "high" ? "highest" : "lowest"} first`, metric: place,
          show: (image) => `${which}: ${values[image] === null ? "n/a" : round(values[image])}` };
      case "apart":
        return { values: data.apart, down: true, words: "how little the captions are alike" };
      case "id": {
        const ranks = new Array(articles.length);
        const compare = new Intl.Collator("en", { numeric: true }).compare;
        data.ids.map((id, image) => [id, image]).sort((a, b) => compare(a[0], b[0])).forEach(([, image], rank) => { ranks[image] = rank; });
        return { values: ranks, down: false, words: "image id" };
      }
      default:
        return { values: null, words: "" };
    }
  }

  function sort() {
    const order = ordering();
    const key = JSON.stringify([controls.sort.value, order.words]);
    for (const field of document.querySelectorAll(".controls [data-for]"))
      field.hidden = !field.dataset.for.split(" ").includes(controls.sort.value);
    if (key === shownOrder) return order.words;
    shownOrder = key;
    const images = articles.map((_, image) => image);
    if (order.values) {
      const sign = order.down ? -1 : 1;
      images.sort((a, b) => {
        const [x, y] = [order.values[a], order.values[b]];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return sign * (x - y) || a - b;
      });
    }
    const fragment = document.createDocumentFragment();
    images.forEach((image) => {
      sortNotes[image].hidden = !order.show;
      if (order.show) sortNotes[image].textContent = order.show(image);
      fragment.append(articles[image]);
    });
    list.append(fragment);
    if (order.metric !== undefined) list.dataset.metric = order.metric;
    return order.words;
  }

  function say(count, words) {
    const total = articles.length;
    const number = (n) => n.toLocaleString("en");
    const pictures = total === 1 ? "picture" : "pictures";
    let text = count === total ? `${number(total)} ${pictures}` : `${number(count)} of ${number(total)} ${pictures}`;
    if (!count && total) text = `None of ${number(total)} ${pictures}: take a word away or clear the filter`;
    byId("count").textContent = words ? `${text}, sorted by ${words}` : text;
  }

  // The state in the address, so that a link shows the same: '#sort=gain&metric=CIDEr-D&q=dog'
  function store() {
    const state = new URLSearchParams();
    for (const [key, control] of Object.entries(controls)) {
      const unused = control && control.closest("[data-for]")?.hidden;
      const value = read(control);
      if (control && !unused && value !== defaults[key]) state.set(key, value);
    }
    const text = state.toString();
    if (!text && !isState(location.hash)) return;
    try { history.replaceState(null, "", text ? `#${text}` : "#pictures"); } catch { /* some browsers limit how often */ }
  }

  const isState = (hash) => Object.keys(controls).some((key) => new URLSearchParams(hash.slice(1)).has(key));

  function restore() {
    if (location.hash.length > 1 && !isState(location.hash)) return; // a link within the page
    const state = new URLSearchParams(location.hash.slice(1));
    for (const [key, control] of Object.entries(controls)) write(control, state.get(key) ?? defaults[key]);
    update();
    if (isState(location.hash)) byId("pictures").scrollIntoView();
  }

  function update() {
    clearTimeout(timer);
    const words = sort();
    say(filter(), words);
  }

  function change() {
    update();
    store();
  }

  function showFigures() {
    const chosen = Number(byId("figure-metric").value);
    document.querySelectorAll("details.score-figures").forEach((group, place) => { group.open = place === chosen; });
  }

  document.documentElement.classList.add("with-script");
  for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;
  controls.q.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(change, wait); });
  for (const [key, control] of Object.entries(controls)) if (control && key !== "q") control.addEventListener("change", change);
  byId("clear").addEventListener("click", () => {
    controls.q.value = "";
    write(controls.differ, "");
    change();
    controls.q.focus();
  });
  addEventListener("hashchange", restore);
  if (byId("figure-metric")) {
    byId("figure-metric").addEventListener("change", showFigures);
    showFigures();
  }
  if (isState(location.hash)) restore();
  else update();
})();
