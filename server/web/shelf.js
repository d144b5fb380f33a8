/* A small shelf in IndexedDB: samples of classes, and pictures that jobs started from (the daemon gives back their hashes alone). Where a browser
 * has none, nothing is kept. */
let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open('denoised', 1);
    asked.onupgradeneeded = () => { asked.result.createObjectStore('samples'); asked.result.createObjectStore('inputs'); };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opened;
}

async function run(store, mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const asked = work(database.transaction(store, mode).objectStore(store));
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

export const put = (store, key, value) => run(store, 'readwrite', (s) => s.put(value, key)).catch(() => {});
export const get = (store, key) => run(store, 'readonly', (s) => s.get(key)).catch(() => undefined);
/* [[key, value]] of keys from first to last. */
export async function range(store, first, last) {
  const keys = IDBKeyRange.bound(first, last);
  try {
    return (await Promise.all([run(store, 'readonly', (s) => s.getAllKeys(keys)), run(store, 'readonly', (s) => s.getAll(keys))]))
      .reduce((names, values) => names.map((name, i) => [name, values[i]]));
  } catch {
    return [];
  }
}

/* The pictures that a job started from, by the hashes that its request shows. */
export const inputsOf = (init, mask) => get('inputs', init.sha256 + (mask?.sha256 || ''));
