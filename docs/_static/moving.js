"use strict";
// Draws the two pictures of "Move it" from the specifications that stand in the page, and joins them to their controls.
(() => {
  const root = document.documentElement;
  const dark = () => root.dataset.theme === "dark";
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--pst-color-${name}`).trim();

  function config() {
    const words = colour("text-base"), faint = colour("border"), font = getComputedStyle(document.body).fontFamily;
    return {
      background: "transparent",
      font,
      axis: { labelColor: words, titleColor: words, gridColor: faint, gridOpacity: 0.5, domainColor: words,
              tickColor: words, labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal" },
      legend: { labelColor: words, labelFontSize: 13, columnPadding: 18, columns: narrow() ? 2 : 0 },
    };
  }

  const narrow = () => document.querySelector(".moving").clientWidth < 700;

  // two panels side by side, or one below the other; black marks would be lost on a dark page
  function fitted(spec, width) {
    const text = JSON.stringify(spec);
    const made = JSON.parse(dark() ? text.replaceAll('"#000000"', '"#DDDDDD"') : text);
    const columns = narrow() ? 1 : 2;
    made.columns = columns;
    made.concat.forEach((panel) => { panel.width = Math.max(180, Math.floor(width / columns) - 85); });
    return made;
  }

  // --- the trade-off ---

  function tradeOff(picture, view, rows, form) {
    const reading = picture.querySelector(".reading");
    const within = ([low, high], value) => value >= Math.min(low, high) && value <= Math.max(low, high);
    const say = () => {
      const region = view.signal("region");
      if (!region || !region.side_accuracy || !region.forget_accuracy) {
        reading.textContent = "No region is drawn.";
        return;
      }
      const inside = rows.filter((row) => within(region.side_accuracy, row.side_accuracy)
        && within(region.forget_accuracy, row.forget_accuracy));
      const near = inside.map((row) => row.near_accuracy);
      const methods = [...new Set(inside.map((row) => row.method))]
        .map((name) => `${name} ${inside.filter((row) => row.method === name).length}`);
      reading.textContent = inside.length
        ? `${inside.length} of ${rows.length} settings in the region (${methods.join(", ")}); in the near domain they keep `
          + `${Math.min(...near).toFixed(2)} to ${Math.max(...near).toFixed(2)}.`
        : "No setting lies in the region.";
    };
    view.addSignalListener("region", say);
    form.elements.zoom.onchange = () => view.signal("zoom", form.elements.zoom.checked).runAsync();
    form.elements.zoom.onchange();
    form.elements.clear.onclick = () => draw(picture);
    say();
  }

  // --- the clamp curve ---

  function clampCurve(picture, view, rows, form) {
    const { world, c } = form.elements, reading = picture.querySelector(".reading");
    if (!world.options.length) new Set(rows.map((row) => row.world)).forEach((name) => world.add(new Option(name)));
    const strengths = () => [...new Set(rows.filter((row) => row.world === world.value).map((row) => row.strength))]
      .sort((a, b) => a - b);
    const show = () => {
      const steps = strengths();
      c.max = steps.length - 1;
      const strength = steps[Math.min(c.value, c.max)];
      const here = rows.filter((row) => row.world === world.value && row.strength === strength);
      const called = strength < 0 ? "no edit" : `c = ${strength}`;
      form.querySelector("output").textContent = called;
      c.setAttribute("aria-valuetext", called);
      const letters = here.map((row) => `${row.name} ${row.probability.toPrecision(3)}`).join(", ");
      const loss = here[0].loss_added, sign = loss < 0 ? "−" : "+";
      reading.textContent = `${called}: ${letters}; loss added ${sign}${Math.abs(loss).toPrecision(2)} nats.`;
      view.signal("world", world.value).signal("c", strength).runAsync();
    };
    c.oninput = show;
    world.onchange = () => { c.value = 0; show(); };
    show();
  }

  // --- both ---

  const WIRED = { trade_off: tradeOff, clamp_curve: clampCurve };

  // the rows stand in the specification; those of lines (chance, 0.99) have no method and no world
  const rowsOf = (spec) => Object.values(spec.datasets).find((rows) => "method" in rows[0] || "world" in rows[0]);

  async function draw(picture) {
    const spec = JSON.parse(picture.querySelector("script").textContent), form = picture.querySelector("form");
    try {
      if (!window.vegaEmbed) throw new Error("Vega is not there");
      const options = { renderer: "svg", actions: false, config: config(), tooltip: { theme: dark() ? "dark" : "light" } };
      const chart = picture.querySelector(".chart");
      const { view } = await window.vegaEmbed(chart, fitted(spec, picture.clientWidth), options);
      form.hidden = false;
      WIRED[picture.id](picture, view, rowsOf(spec), form);
      picture.classList.add("drawn");
    } catch (error) {
      console.warn(`${picture.id} is shown as a still picture: ${error.message}`);
      stillPicture(picture);
    }
  }

  const pictures = [...document.querySelectorAll(".moving")];
  pictures.forEach((picture) => picture.querySelector("form").addEventListener("submit", (e) => e.preventDefault()));
  const drawAll = () => pictures.forEach(draw);
  drawAll();

  new MutationObserver(drawAll).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
  let width = pictures.length ? pictures[0].clientWidth : 0, waiting;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (pictures[0].clientWidth === width) return;
      width = pictures[0].clientWidth;
      drawAll();
    }, 200);
  });
})();
