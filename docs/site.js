// Browsers let a page that was opened from disk neither read the search's index nor start its worker: its buttons would
// do nothing.
if (location.protocol === "file:") {
  addEventListener("DOMContentLoaded", () => {
    const note = document.createElement("span");
    note.className = "md-header__option search-note";
    note.textContent = "To search, serve the site: zensical serve";
    document.querySelector("button.md-search__button").replaceWith(note);
    document.querySelector("label.md-header__button[for=__search]").remove();
  });
}
