
"use strict";
// Rows come from outside: they reach the page through textContent, alt, and links made by Python, never as HTML.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = byId("rows");
  const rows = JSON.parse(data.textContent);
  const pageRows = Number(data.dataset.pageRows);
  const gallery = byId("gallery"), viewer = byId("viewer"), pagers = document.querySelectorAll(".pager");
  const view = { state: "all", reason: "", sort: "order", words: [], matches: [], page: 0 };
  const at = { place: 0, picture: 0 };  // what the viewer shows: a place in view.matches, and a picture of that row

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const number = (n) => n.toLocaleString("en");
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);
  const moment = (ms) => new Date(ms).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
  const reason = (error) => [error.message || error.type, error.code && `(${error.code})`].filter(Boolean).join(" ");
  const asked = (row) => [row.size, row.resolution, row.quality, row.duration].filter(Boolean);

  // ------------------------------------------------------------------------------------------------------- finding

  const textOf = (row) => row.text ??= [
    row.prompt, row.key, row.model, ...asked(row), row.task, row.business, row.error && `${row.error.type} ${reason(row.error)}`,
    ...row.pictures.map((picture) => picture.name),
  ].filter(Boolean).join("\n").toLowerCase();

  const find = () => {
    view.matches = [];
    rows.forEach((row, place) => {
      if (view.state !== "all" && row.state !== view.state) return;
      if (view.reason && codeOf(row) !== view.reason) return;
      if (view.words.every((word) => textOf(row).includes(word))) view.matches.push(place);
    });
    const measure = measures[view.sort];  // equal ones, and those that are not known, stay in order
    if (measure) view.matches.sort((a, b) => measure(rows[b]) - measure(rows[a]) || a - b);
    show(0);
  };

  const codeOf = (row) => row.error && (row.error.code || row.error.type);
  const measures = {
    seconds: (row) => row.seconds ?? -1,
    cost: (row) => row.credits === undefined ? -1 : Number(row.credits.replaceAll(",", "")),
  };

  const rowAt = (place) => rows[view.matches[place]];
  const pages = () => Math.max(1, Math.ceil(view.matches.length / pageRows));

  const show = (page) => {
    view.page = page;
    const first = page * pageRows, end = Math.min(first + pageRows, view.matches.length), count = view.matches.length;
    const cards = document.createDocumentFragment();
    for (let place = first; place < end; place++) cards.append(card(rowAt(place), place));
    gallery.replaceChildren(cards);
    gallery.classList.toggle("many", end - first > 200);  // lets the browser leave out what is off screen
    byId("shown").textContent = pages() > 1
      ? `${number(first + 1)} to ${number(end)} of ${number(count)}`
      : count === rows.length ? "" : `${number(count)} of ${number(rows.length)}`;
    byId("empty").hidden = count > 0;
    byId("empty").textContent = rows.length ? "No row is like that." : "There are no rows in this folder yet.";
    for (const pager of pagers) fillPager(pager);
  };

  const fillPager = (pager) => {
    const last = pages() - 1;
    const turn = (name, page) => {
      const button = make("button", "", name);
      button.type = "button";
      button.disabled = page < 0 || page > last || page === view.page;
      button.addEventListener("click", () => {
        show(page);
        byId("pictures").scrollIntoView();
        byId("pictures").focus({ preventScroll: true });
      });
      return button;
    };
    pager.hidden = last === 0;
    pager.replaceChildren(
      turn("First", 0), turn("Previous", view.page - 1),
      make("span", "", `Page ${number(view.page + 1)} of ${number(last + 1)}`),
      turn("Next", view.page + 1), turn("Last", last),
    );
  };

  // --------------------------------------------------------------------------------------------------------- cards

  const SHOTS = 4;

  const card = (row, place) => {
    const item = make("li", `card is-${row.state}`);
    const shots = Math.max(1, Math.min(row.pictures.length, SHOTS));
    const frame = make("div", `frame ${shots > 2 ? "four" : shots > 1 ? "two" : ""}`);
    for (let i = 0; i < shots; i++) frame.append(shot(row, place, i));
    if (row.pictures.length > SHOTS) frame.lastChild.append(make("span", "more", `+${row.pictures.length - SHOTS}`));
    const words = make("div", "text");
    const prompt = make("p", "prompt", cut(row.prompt, 400));
    prompt.dir = "auto";
    words.append(prompt);
    if (row.error && row.pictures.length) words.append(make("p", "failure", cut(reason(row.error), 300)));
    if (fewer(row)) words.append(make("p", "failure", fewer(row)));
    const meta = make("p", "meta");
    meta.append(make("span", "", asked(row).join(" · ")));
    const end = [row.took, row.credits && `${row.credits} cr`].filter(Boolean).join(" · ");
    if (end) meta.append(make("span", "end", end));
    words.append(meta, make("p", "key", row.key));
    item.append(frame, words);
    return item;
  };

  const fewer = (row) =>
    row.state === "done" && row.n > row.pictures.length && `${row.pictures.length} of ${row.n} ${row.kind ?? "image"}s came`;

  const shot = (row, place, i) => {
    const button = make("button", "shot");
    button.type = "button";
    button.dataset.at = `${place}.${i}`;
    button.addEventListener("click", () => { look(place, i); viewer.showModal(); });
    button.append(image(row, i, true));
    if (row.pictures[i]?.video) button.append(make("span", "play", "▶ Video"));
    return button;
  };

  const image = (row, i, small) => {
    const picture = row.pictures[i];
    if (!picture || picture.problem) return blank(row, picture);
    if (picture.video) return video(row, picture, small);
    const img = make("img");
    img.alt = cut(row.prompt, 200) + (row.pictures.length > 1 ? ` (${i + 1} of ${row.pictures.length})` : "");
    img.loading = small ? "lazy" : "eager";
    img.decoding = "async";
    img.addEventListener("error", () => img.replaceWith(blank(row, { problem: "not to be shown" })));
    img.src = small && picture.thumb || picture.link;
    return img;
  };

  const seen = new IntersectionObserver((entries) => {  // a video's file is opened once its card comes into view
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      target.src = target.dataset.src;
      seen.unobserve(target);
    }
  }, { rootMargin: "300px" });

  const video = (row, picture, small) => {
    const element = make("video");
    element.ariaLabel = cut(row.prompt, 200);
    element.preload = "metadata";
    element.playsInline = true;
    element.addEventListener("error", () => element.replaceWith(blank(row, { problem: "not to be played" })));
    if (small) {
      element.muted = true;
      element.dataset.src = `${picture.link}#t=0.1`;  // its first frame is its poster
      seen.observe(element);
    } else {
      element.controls = true;
      element.src = picture.link;
    }
    return element;
  };

  const blank = (row, picture) => {
    const box = make("span", "blank");
    if (picture) {
      box.append(make("b", "", "No picture"), make("span", "", picture.name ? `${picture.name}: ${picture.problem}` : picture.problem));
    } else if (row.error) {
      box.append(make("b", "", "Failed"), make("span", "", cut(reason(row.error), 160)));
    } else {
      const since = row.submitted ? `since ${moment(row.submitted)}` : "";
      box.append(make("b", "", { running: "Running", waiting: "Not sent yet", failed: "Failed" }[row.state] ?? "No picture"), make("span", "", since));
    }
    return box;
  };

  // -------------------------------------------------------------------------------------------------------- viewer

  const look = (place, i) => {
    at.place = place;
    at.picture = i;
    const row = rowAt(place), picture = row.pictures[i];
    byId("stage").className = `stage is-${row.state}`;
    byId("stage").replaceChildren(image(row, i, false));
    byId("place").textContent = `${number(place + 1)} of ${number(view.matches.length)}`
      + (row.pictures.length > 1 ? `, picture ${i + 1} of ${row.pictures.length}` : "");
    byId("viewer-key").textContent = row.key;
    byId("viewer-prompt").textContent = row.prompt + (row.cut ? ` … (${number(row.cut)} more characters)` : "");
    byId("viewer-error").hidden = !row.error;
    byId("viewer-error").textContent = row.error ? `${row.error.type}: ${reason(row.error)}` : "";
    byId("link").href = addressOf(row, i);
    byId("copied").textContent = "";
    byId("copy").disabled = !row.prompt;
    fillTogether(row, i);
    fillReferences(row);
    history.replaceState(null, "", addressOf(row, i));  // so that the browser's own address is the picture's, too
    byId("open").hidden = !picture?.link;
    if (picture?.link) byId("open").href = picture.link;
    byId("facts").replaceChildren(...facts(row, picture).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
    document.querySelector(".words").scrollTop = 0;
    byId("previous").ariaDisabled = String(!step(-1));  // a button that is disabled would lose the focus
    byId("next").ariaDisabled = String(!step(1));
  };

  const addressOf = (row, i) => `#${encodeURIComponent(row.key)}${i ? `/${i + 1}` : ""}`;

  const fillTogether = (row, current) => {  // all pictures of one row
    byId("together").hidden = row.pictures.length < 2;
    byId("together").replaceChildren(...(row.pictures.length < 2 ? [] : row.pictures.map((picture, i) => {
      const button = make("button", "small");
      button.type = "button";
      button.ariaLabel = `Picture ${i + 1} of ${row.pictures.length}`;
      if (i === current) button.ariaCurrent = "true";
      if (picture.problem || picture.video) button.append(make("span", "", String(i + 1)));
      else button.append(smallImage(picture));
      button.addEventListener("click", () => {
        look(at.place, i);
        byId("together").children[i].focus();
      });
      return button;
    })));
  };

  const fillReferences = (row) => {
    byId("made-from").hidden = !row.references;
    byId("references").replaceChildren(...(row.references ?? []).map((reference, i) => {
      const item = make("li");
      if (!reference.link) {
        item.append(make("span", "muted", `${reference.name}: ${reference.problem}`));
        return item;
      }
      const link = make("a", reference.thumb ? "small" : "", reference.thumb ? undefined : cut(reference.name, 60));
      link.href = reference.link;
      link.target = "_blank";
      link.rel = "noopener noreferrer";
      if (reference.thumb) {
        link.ariaLabel = `Reference ${i + 1}`;
        link.append(smallImage(reference));
      }
      item.append(link);
      return item;
    }));
  };

  const smallImage = (picture) => {
    const img = make("img");
    img.alt = "";
    img.decoding = "async";
    img.src = picture.thumb || picture.link;
    return img;
  };

  const copy = async () => {
    const { prompt } = rowAt(at.place);
    try {
      await navigator.clipboard.writeText(prompt);
      byId("copied").textContent = "Copied";
    } catch {  // the browser does not let a page from disk: the text is selected for Ctrl-C
      getSelection().selectAllChildren(byId("viewer-prompt"));
      byId("copied").textContent = "Selected: copy it with Ctrl-C";
    }
  };

  const openAddress = () => {  // `#key`, or `#key/2` for its second picture
    let name;
    try {
      name = decodeURIComponent(location.hash.slice(1));
    } catch {
      return;
    }
    if (!name) return;
    const whole = rows.findIndex((row) => row.key === name);
    const [, key, i] = whole >= 0 ? [null, name, "1"] : /^(.*)\/(\d{1,4})$/su.exec(name) ?? [];
    const index = whole >= 0 ? whole : rows.findIndex((row) => row.key === key);
    if (index < 0) return;
    let place = view.matches.indexOf(index);
    if (place < 0) {
      reset();
      place = view.matches.indexOf(index);
    }
    look(place, Math.min(Math.max(Number(i) - 1, 0), lastPicture(place)));
    if (!viewer.open) viewer.showModal();
  };

  const facts = (row, picture) => [
    ["State", row.state],
    ["Asked for", [row.model, ...asked(row), row.n > 1 && `${row.n} ${row.kind ?? "image"}s`].filter(Boolean).join(" · ")],
    ["Came", fewer(row)],
    ["Measures", picture?.width && `${picture.width} × ${picture.height}`],
    ["Cost", row.credits && `${row.credits} credits`],
    ["Service took", row.took],
    ["Submitted", row.submitted && moment(row.submitted)],
    ["Completed", row.completed && moment(row.completed)],
    ["Saved", row.saved && moment(row.saved)],
    ["File", picture?.name],
    ["Task", row.task],
    ["Business id", row.business],
  ].filter(([, value]) => value);

  const lastPicture = (place) => Math.max(rowAt(place).pictures.length - 1, 0);

  const step = (by) => {
    const i = at.picture + by, place = at.place + by;
    if (i >= 0 && i <= lastPicture(at.place)) return [at.place, i];
    if (place < 0 || place >= view.matches.length) return null;
    return [place, by > 0 ? 0 : lastPicture(place)];
  };

  const go = (target) => { if (target) look(...target); };
  const keys = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    Home: () => [0, 0],
    End: () => [view.matches.length - 1, lastPicture(view.matches.length - 1)],
  };

  document.addEventListener("keydown", (event) => {
    if (!viewer.open || !(event.key in keys) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    go(keys[event.key]());
  });
  viewer.addEventListener("close", () => {  // back to the card of what was looked at last, on its page
    const page = Math.floor(at.place / pageRows);
    if (page !== view.page) show(page);
    const buttons = gallery.children[at.place % pageRows]?.querySelectorAll(".shot");
    buttons?.[Math.min(at.picture, buttons.length - 1)]?.focus();
    byId("stage").replaceChildren();
    history.replaceState(null, "", location.pathname + location.search);
  });
  byId("copy").addEventListener("click", copy);

  let touch;  // a swipe of one finger goes to the next picture; two fingers zoom
  byId("stage").addEventListener("touchstart", (event) => {
    touch = event.touches.length === 1 ? event.touches[0] : null;
  }, { passive: true });
  byId("stage").addEventListener("touchend", (event) => {
    if (!touch || event.touches.length) return;
    const across = event.changedTouches[0].clientX - touch.clientX, down = event.changedTouches[0].clientY - touch.clientY;
    touch = null;
    if (Math.abs(across) > 45 && Math.abs(across) > 2 * Math.abs(down)) go(step(across < 0 ? 1 : -1));
  }, { passive: true });
  byId("previous").addEventListener("click", () => go(step(-1)));
  byId("next").addEventListener("click", () => go(step(1)));
  byId("close").addEventListener("click", () => viewer.close());

  // --------------------------------------------------------------------------------------------------------- tools

  let typing;
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("tools").addEventListener("change", (event) => {
    if (event.target.name === "state") view.state = event.target.value;
    else if (event.target.id === "reason") view.reason = event.target.value;
    else if (event.target.id === "sort") view.sort = event.target.value;
    else return;
    find();
  });
  const reset = () => {
    byId("tools").reset();
    Object.assign(view, { state: "all", reason: "", sort: "order", words: [] });
    find();
  };
  const reasons = new Map();
  for (const code of rows.map(codeOf).filter(Boolean)) reasons.set(code, (reasons.get(code) ?? 0) + 1);
  byId("reasons").hidden = reasons.size < 2;
  for (const [code, count] of [...reasons].sort((a, b) => b[1] - a[1]).slice(0, 50)) {
    const option = make("option", "", `${cut(code, 60)} (${number(count)})`);
    option.value = code;
    byId("reason").append(option);
  }
  byId("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      view.words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      find();
    }, 120);
  });

  for (const time of document.querySelectorAll("time")) time.textContent = moment(Date.parse(time.dateTime));
  const run = document.querySelector(".run");
  if (run && matchMedia("(max-width: 560px)").matches) run.open = false;
  byId("tools").hidden = false;
  reset();  // a browser that reloads would keep what was typed, but not what it found
  addEventListener("hashchange", openAddress);
  openAddress();
})();
