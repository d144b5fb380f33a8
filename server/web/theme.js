/* Before the first paint: the theme chosen last time. After it: the page's modules, which it need not wait for. */
try { document.documentElement.dataset.theme = localStorage.getItem('theme') || 'auto'; } catch { /* no storage: as the system */ }
{
  const start = () => import('./app.js');
  if (document.hidden) start();
  else requestAnimationFrame(() => setTimeout(start));
}
