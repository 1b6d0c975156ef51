// The page: files in, recordings out.

import * as api from "./api.js";
import { Numbers } from "./numbers.js";
import { clock } from "./player.js";
import { Recorder } from "./recorder.js";
import { Recording } from "./recording.js";

const find = (selector) => document.querySelector(selector);
const [chooser, recordButton, list, select] = ["#files", "#record", "#recordings", "#model"].map(find);
const recorder = new Recorder();
const recordings = [];
let models = []; // in the order of the list
let ended = []; // recordings whose requests have ended since all was quiet

const announce = (text) => (find("#status").textContent = text);
const alarm = (text) => (find("#alert").textContent = text);

async function loadModels() {
  try {
    models = await api.models();
    select.replaceChildren(...models.map(({ id }) => new Option(id)));
    select.disabled = models.length < 2;
    alarm(models.length ? "" : "This server has no model that transcribes.");
  } catch (error) {
    alarm(error.message);
  }
}

// Send files; a single one is opened at once.
async function add(files) {
  if (!files.length) return;
  alarm("");
  if (!models.length) await loadModels();
  const model = models[select.selectedIndex];
  if (!model) return;
  const added = files.map((file) => new Recording(file, model, { onEnded, onRemoved }));
  recordings.unshift(...added);
  list.prepend(...added.map(({ row }) => row));
  announce(added.length > 1 ? `Transcribing ${added.length} recordings` : `Transcribing ${added[0].file.name}`);
  if (added.length === 1) added[0].open();
  for (const recording of added) recording.transcribe();
}

// Announce ends once all have come: one by one they would drown each other.
function onEnded(recording) {
  ended.push(recording);
  if (recordings.some(({ busy }) => busy)) return;
  const done = ended.filter(({ state }) => state === "done").length;
  const words = recording.text.split(/\s+/).filter(Boolean).length;
  if (ended.length > 1) announce(`${done} of ${ended.length} recordings done`);
  else announce(`${recording.file.name}: ${done ? `done, ${words} words` : recording.state}`);
  ended = [];
}

// Keep the focus in the list when its row goes.
function onRemoved(recording) {
  const index = recordings.indexOf(recording);
  recordings.splice(index, 1);
  (recordings[index] ?? recordings[index - 1])?.row.querySelector(".open").focus();
  if (!recordings.length) find("#choose").focus();
}

async function toggleRecording() {
  if (recorder.isOn) {
    showRecording(false);
    await add([await recorder.stop()]);
    return;
  }
  alarm("");
  recordButton.disabled = true; // while the browser asks
  try {
    await recorder.start(showLevel);
    showRecording(true);
  } catch (error) {
    alarm(error.message);
  } finally {
    recordButton.disabled = false;
    recordButton.focus();
  }
}

function showRecording(is) {
  recordButton.classList.toggle("on", is);
  recordButton.querySelector(".label").textContent = is ? "Stop" : "Record";
  announce(is ? "Recording" : "");
}

function showLevel(level, seconds) {
  recordButton.style.setProperty("--level", level.toFixed(2));
  recordButton.dataset.clock = clock(seconds);
}

// Escape ends what is under way: a recording, else the request of the row with the focus, else all requests.
function escape() {
  if (recorder.isOn) {
    recorder.discard();
    showRecording(false);
    return;
  }
  const focused = recordings.filter(({ row, busy }) => busy && row.contains(document.activeElement));
  for (const recording of focused.length ? focused : recordings) recording.cancel();
}

function askForKey(message) {
  const [dialog, field] = ["#key", "#key-field"].map(find);
  find("#key-message").textContent = message;
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "use") sessionStorage.setItem("key", field.value);
      resolve(dialog.returnValue === "use");
    }, { once: true });
  });
}

function listen() {
  find("#choose").addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    add([...chooser.files]);
    chooser.value = ""; // so that the same file can be chosen again
  });
  recordButton.addEventListener("click", toggleRecording);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !find("#key").open) escape();
  });
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
  addEventListener("drop", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.remove("dragging");
    add([...event.dataTransfer.files]);
  });
}

api.onKeyNeeded(askForKey);
listen();
loadModels();
new Numbers(find("#engine")).start();
