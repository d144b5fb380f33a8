/* Before the first paint: the theme chosen last time. */
try { document.documentElement.dataset.theme = localStorage.getItem('theme') || 'auto'; } catch { /* no storage: as the system */ }
