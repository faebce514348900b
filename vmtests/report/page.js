"use strict";
for (const boot of document.querySelectorAll(".boot")) {
  const chart = boot.querySelector(".chart"), wide = boot.querySelector(".wide");
  const bars = [...boot.querySelectorAll(".bar")];
  const lines = [...boot.querySelectorAll(".lines li")];
  const form = boot.querySelector("form"), [box, only] = form.querySelectorAll("input");
  const of = form.querySelector("select");
  const out = form.querySelector("output"), list = boot.querySelector(".lines");
  let zoom = 1, hits = [], hit = -1, seen = null;
  // Within the list, so that the page does not jump.
  const show = (li) => {
    list.querySelector(".at")?.classList.remove("at");
    if (!li) return;
    li.classList.add("at");
    // Lines that were never in sight have an estimated height, which becomes the real one as they come there.
    const near = (again) => {
      if (!li.matches(".at")) return;
      list.scrollTop = li.offsetTop - list.offsetTop - list.clientHeight / 3;
      if (again) requestAnimationFrame(() => near(again - 1));
    };
    near(0);
    seen?.disconnect();
    seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      near(6);
    });
    seen.observe(list);
  };
  const pick = (bar) => {
    boot.querySelector(".bar.on")?.classList.remove("on");
    bar.classList.add("on");
  };
  const open = (bar) => {
    pick(bar);
    show(lines[Number(bar.dataset.line)]);
    if (list.getBoundingClientRect().top > innerHeight * 0.8) list.parentNode.scrollIntoView();
  };
  const scale = (to) => {
    const before = (chart.scrollLeft + chart.clientWidth / 2) / wide.offsetWidth;
    zoom = Math.min(Math.max(to, 1), 64);
    wide.style.width = zoom * 100 + "%";
    wide.classList.toggle("zoomed", zoom > 1);
    chart.scrollLeft = before * wide.offsetWidth - chart.clientWidth / 2;
  };
  // A label stands beside its bar, where it is whole: to the right, else to the left, else over it.
  const place = () => {
    const room = wide.clientWidth;
    for (const text of boot.querySelectorAll(".label")) {
      const rect = text.parentNode.querySelector("rect").getBBox(), long = text.getComputedTextLength();
      const left = rect.x - 6 - long, right = rect.x + rect.width + 6;
      text.setAttribute("x", right + long <= room ? right : left >= 0 ? left : Math.max(room - long, 0));
      text.classList.remove("late");
      text.removeAttribute("dx");
    }
  };
  new ResizeObserver(place).observe(wide);
  const change = { in: () => scale(zoom * 2), out: () => scale(zoom / 2), fit: () => scale(1) };
  for (const button of boot.querySelectorAll("[data-zoom]")) button.onclick = change[button.dataset.zoom];
  chart.onclick = (event) => { const bar = event.target.closest(".bar"); if (bar) open(bar); };
  chart.onkeydown = (event) => {
    const at = bars.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (step) bars[Math.min(Math.max(at + step, 0), bars.length - 1)].focus();
    else if (event.key === "Enter" || event.key === " ") { if (at >= 0) open(bars[at]); }
    else if (event.key === "+" || event.key === "=") change.in();
    else if (event.key === "-") change.out();
    else if (event.key === "0") change.fit();
    else return;
    event.preventDefault();
  };
  list.onclick = (event) => {
    const li = event.target.closest("button")?.parentNode;
    if (!li) return;
    show(li);
    const t = Number(li.dataset.t);
    const bar = bars.filter((b) => Number(b.dataset.t) <= t + 0.001 && !b.matches(".event,.evidence"))
      .sort((a, b) => b.dataset.t - a.dataset.t)[0];
    if (!bar) return;
    pick(bar);
    const up = bar.closest(".units");
    if (up) up.scrollTop = bar.getBBox().y - up.clientHeight / 2;
    chart.scrollLeft = (bar.getBoundingClientRect().left - wide.getBoundingClientRect().left) - chart.clientWidth / 3;
  };
  const next = () => {
    if (!hits.length) return;
    hit = (hit + 1) % hits.length;
    show(hits[hit]);
    out.value = hit + 1 + " of " + hits.length;
  };
  box.oninput = () => {
    const wanted = box.value.toLowerCase();
    hits = lines.filter((li) => {
      const shown = of.value === "" || li.dataset.of === of.value;
      li.hidden = !shown;
      const found = shown && wanted !== "" && li.querySelector("code").textContent.toLowerCase().includes(wanted);
      li.classList.toggle("hit", found);
      return found;
    });
    hit = -1;
    out.value = wanted === "" ? "" : "nothing found";
    list.classList.toggle("only", only.checked && wanted !== "");
    next();
  };
  only.onchange = of.onchange = box.oninput;
  form.onsubmit = (event) => { event.preventDefault(); next(); };
  const evidence = lines.filter((li) => li.classList.contains("evidence"));
  const button = boot.querySelector(".to-evidence");
  if (button) button.onclick = () => show(evidence[0]);
  if (evidence.length) show(evidence[0]);
}
for (const button of document.querySelectorAll(".go")) {
  button.onclick = () => {
    const boot = document.getElementById(button.dataset.boot);
    boot.open = true;
    boot.scrollIntoView();
    boot.querySelector("summary").focus();
  };
}
