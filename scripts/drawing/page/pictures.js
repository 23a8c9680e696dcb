/** Pictures from files, by drop and by paste. */

import { $ } from "./elements.js";
import { problem } from "./problems.js";

const LARGEST_FILE = 8_000_000; // bytes

/** Read a picture that was dropped, pasted or chosen. */
async function openPicture(file, show) {
  if (!file) {
    problem(new Error("That is no picture file; drop, paste or open one, such as a PNG or a JPEG."));
    return;
  }
  if (file.size > LARGEST_FILE) {
    problem(new Error("This file has more than 8 MB; make the picture smaller."));
    return;
  }
  const bitmap = await createImageBitmap(file).catch(() => null); // what only the server can read is not shown
  show({ file, bitmap });
}

/** Take pictures from the button, by drop and by paste; `show` gets {file, bitmap}. */
export function takePictures(show) {
  const open = (file) => openPicture(file, show);
  $("open").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    open($("file").files[0]);
    $("file").value = "";
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    open(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => open(event.clipboardData.files[0]));
}
