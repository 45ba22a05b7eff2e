// A question before something that cannot be taken back.

import { Problem } from "./api.js";
import { byId, hideProblem, make, showProblem } from "./dom.js";

let question = null; // the one that is open

/**
 * Ask, and do it.
 *
 * `words` are what will happen, a paragraph each (a function is asked again at every
 * keystroke in a field); `fields` are elements to fill in; `act` does it, and while it
 * throws a Problem the dialog stays and shows it.  `isTold` is of what is done already,
 * and cannot be cancelled.  Gives what `act` gave, or null.
 */
export function confirm({ title, words, yes, danger = false, fields = [], isTold = false, act }) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-fields").replaceChildren(...fields);
  const button = byId("confirm-yes");
  button.classList.toggle("danger", danger);
  byId("confirm-no").hidden = isTold;
  hideProblem(byId("confirm-problem"));
  const tell = () => {
    const said = typeof words === "function" ? words() : words;
    byId("confirm-words").replaceChildren(...said.map((text) => make("p", {}, text)));
    button.textContent = typeof yes === "function" ? yes() : yes;
  };
  tell();
  return new Promise((resolve) => {
    question = { act, tell, resolve, result: null };
    button.disabled = false;
    dialog.showModal();
    // What is dangerous is not what Enter does.
    (fields.length ? dialog.querySelector("#confirm-fields input, #confirm-fields select")
      : danger ? byId("confirm-no") : button)?.focus();
  });
}

export function prepareDialogs() {
  const dialog = byId("confirm");
  byId("confirm-no").addEventListener("click", () => dialog.close());
  byId("confirm-form").addEventListener("input", () => question?.tell());
  byId("confirm-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = byId("confirm-yes");
    const asked = question;
    if (button.disabled || !asked) return;
    button.disabled = true;
    hideProblem(byId("confirm-problem"));
    try {
      asked.result = (await asked.act()) ?? true;
      if (question === asked) dialog.close();
      else asked.resolve(asked.result);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (question === asked) {
        showProblem(byId("confirm-problem"), capital(error.message) + ".",
          error.unknown ? "Nobody knows whether it was carried out: look before you try again."
            : error.hint);
      }
    } finally {
      button.disabled = false;
    }
  });
  dialog.addEventListener("close", () => {
    const asked = question;
    question = null;
    asked?.resolve(asked.result);
  });
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
