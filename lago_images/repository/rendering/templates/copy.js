"use strict";
{
  const said = document.getElementById("said");
  const copy = async (source) => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      return true;
    } catch {
      // Over plain HTTP there is no navigator.clipboard, and where there is one it may be forbidden.
      getSelection().selectAllChildren(source);
      const copied = document.execCommand("copy");
      // What was not copied stays selected, for Ctrl+C.
      if (copied) getSelection().removeAllRanges();
      return copied;
    }
  };
  for (const button of document.querySelectorAll("[data-copy]")) {
    const [label, what] = button.childNodes;
    button.hidden = false;
    button.addEventListener("click", async () => {
      // Beside what it copies, or told its id.
      const source = document.getElementById(button.dataset.copy) || button.previousElementSibling;
      label.data = await copy(source) ? "Copied" : "Selected";
      said.textContent = label.data + what.textContent;
      setTimeout(() => { label.data = "Copy"; said.textContent = ""; }, 2000);
    });
  }
}
