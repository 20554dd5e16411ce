// A storage adapter in memory, which several Repos may share as browser tabs share one IndexedDB.

export class MemoryStorage {
  #entries = new Map();

  async load(key) {
    return this.#entries.get(key.join("\0"));
  }

  async save(key, data) {
    this.#entries.set(key.join("\0"), data);
  }

  async remove(key) {
    this.#entries.delete(key.join("\0"));
  }

  async loadRange(prefix) {
    return this.#keysUnder(prefix).map((key) => ({ key: key.split("\0"), data: this.#entries.get(key) }));
  }

  async removeRange(prefix) {
    for (const key of this.#keysUnder(prefix)) this.#entries.delete(key);
  }

  #keysUnder(prefix) {
    const start = prefix.join("\0");
    return [...this.#entries.keys()].filter((key) => key === start || key.startsWith(`${start}\0`));
  }
}
