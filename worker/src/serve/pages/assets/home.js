// The start: the sign-in, and the way to the pages that a role may see. A customer has one page, and is taken there.

import { Poll, tickOf } from "./api.js";
import { h, update } from "./dom.js";
import { Shell, pagesOf } from "./shell.js";

new Shell("home", (shell, session) => {
  const pages = pagesOf(session.role);
  if (pages.length === 1) location.replace(pages[0].path);
  const poll = new Poll(
    () => shell.ask(async () => shell.setTick(tickOf((await shell.api.get("/v1/session")).data.tick), "UTC")),
    (wait) => shell.failed(wait),
  );
  poll.now();
  return {
    draw() {
      const { words } = shell;
      update(shell.main,
        h("div", { class: "head" }, h("h1", {}, words.welcome), h("p", { id: "as-of", class: "as-of" })),
        h("ul", { class: "ways" },
          pages.map(({ name, path }) =>
            h("li", {}, h("a", { href: path, class: "card" },
              h("strong", {}, words.pageOf[name]), h("span", { class: "soft" }, words.aboutPage[name]))))));
    },
    end: () => poll.end(),
  };
});
