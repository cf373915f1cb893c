// Looks again every second and puts the new state in place of the old. Without it the page reloads itself.
"use strict";
(() => {
  const look = async () => {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("n-progress");
      if (!fresh) return location.reload(); // the session ended
      const old = document.getElementById("n-progress");
      const at = old.contains(document.activeElement) && document.activeElement.tagName === "BUTTON";
      old.replaceWith(fresh);
      if (at) fresh.querySelector("button")?.focus();
      if (!fresh.hasAttribute("data-unfinished")) return;
    } catch {
      // The server is away for a moment.
    }
    setTimeout(look, 1000);
  };
  setTimeout(look, 1000);
})();
