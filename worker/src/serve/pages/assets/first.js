// Runs before anything of a page is drawn or asked for: a classic script, the first of each page.
//
// A link may bring a token as `#token=...`. It is moved to the tab's own storage, and out of the address, before other code
// runs. So neither the history nor a copied address has it. Colours and language are set here, too, as a page that
// changes them after it was drawn would flicker.
(() => {
  const kept = [];
  let token = null;
  for (const part of location.hash.slice(1).split("&")) {
    if (!part.startsWith("token=")) {
      kept.push(part);
      continue;
    }
    const text = part.slice("token=".length);
    try {
      // A plus sign stays one: tokens in base64 have them.
      token = decodeURIComponent(text).trim();
    } catch {
      token = text;
    }
  }
  if (token !== null) {
    const rest = kept.filter(Boolean).join("&");
    history.replaceState(null, "", location.pathname + location.search + (rest && `#${rest}`));
    try {
      sessionStorage.setItem("keytide.token", token);
    } catch {
      // Without storage the token lasts until the page is left.
      window.keytideToken = token;
    }
  }
  const chosen = (name) => {
    try {
      return localStorage.getItem(`keytide.${name}`);
    } catch {
      return null;
    }
  };
  const root = document.documentElement;
  const theme = chosen("theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const language = chosen("language") ?? navigator.language ?? "en";
  root.lang = language.toLowerCase().startsWith("ko") ? "ko" : "en";
})();
