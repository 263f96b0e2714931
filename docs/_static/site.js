"use strict";
// Small helps that pages do without: filters in the gallery, one button for all code of a notebook.

function filterGallery(form) {
  const cards = [...document.querySelectorAll(".figure-card")];
  const show = () => {
    const wanted = [...new FormData(form)].filter(([, key]) => key).map(([kind, key]) => `${kind}-${key}`);
    let shown = 0;
    for (const card of cards) {
      const column = card.closest(".sd-col") || card;
      column.hidden = !wanted.every((name) => card.classList.contains(name));
      shown += !column.hidden;
    }
    form.querySelector(".count").textContent = `${shown} of ${cards.length} figures`;
  };
  form.hidden = false;
  form.addEventListener("change", show);
  show();
}

function foldAll(button) {
  const cells = [...document.querySelectorAll("details.hide")];
  if (!cells.length) return;
  button.hidden = false;
  button.addEventListener("click", () => {
    const open = button.textContent.startsWith("Show");
    cells.forEach((cell) => { cell.open = open; });
    button.textContent = open ? "Hide all code" : "Show all code";
  });
}

document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("#filters");
  if (form) filterGallery(form);
  document.querySelectorAll("button.all-code").forEach(foldAll);
  // a table that is wider than the page is scrolled, also by keys
  document.querySelectorAll(".cell_output, .table-wrapper").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  });
});
