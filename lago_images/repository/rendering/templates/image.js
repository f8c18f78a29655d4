(() => {
  const open = async (details) => {
    const [filter, listed, note, frame] = [".filter", ".listed", ".note", "iframe"].map((one) => details.querySelector(one));
    const answer = await fetch(details.dataset.list);
    if (!answer.ok) return;
    const lines = (await answer.text()).split("\n").filter(Boolean);
    const [input, status] = [filter.querySelector("input"), filter.querySelector("[role=status]")];
    const show = () => {
      const fitting = lines.filter((line) => line.toLowerCase().includes(input.value.toLowerCase()));
      status.textContent = `${fitting.length} of ${lines.length} package${lines.length === 1 ? "" : "s"}`;
      listed.firstElementChild.replaceChildren(...fitting.map((line) => {
        const item = document.createElement("li");
        item.textContent = line;
        return item;
      }));
    };
    frame.remove();
    note.remove();
    filter.hidden = listed.hidden = false;
    input.addEventListener("input", show);
    show();
  };
  for (const details of document.querySelectorAll("[data-list]")) {
    // From a folder on disk nothing may be fetched: the frame shows the list there, unfiltered.
    if (location.protocol !== "file:") details.addEventListener("toggle", () => open(details), {once: true});
  }
})();
