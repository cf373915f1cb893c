// Fetches the page every second and replaces the progress section. Without JavaScript the page reloads itself.
"use strict";
(() => {
  const refresh = async () => {
    try {
      const response = await fetch(location.href, { credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const updated = page.getElementById("n-progress");
      if (!updated) return location.reload(); // the session ended
      const current = document.getElementById("n-progress");
      const buttonFocused = current.contains(document.activeElement) && document.activeElement.tagName === "BUTTON";
      current.replaceWith(updated);
      if (buttonFocused) updated.querySelector("button")?.focus();
      if (!updated.hasAttribute("data-unfinished")) return;
    } catch {
      // The server is unavailable; try again.
    }
    setTimeout(refresh, 1000);
  };
  setTimeout(refresh, 1000);
})();
