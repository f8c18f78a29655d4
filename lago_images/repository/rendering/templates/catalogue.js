(() => {
  const ages = [["year", 365], ["month", 30], ["day", 1]];
  const words = new Intl.RelativeTimeFormat("en", {numeric: "auto"});
  const age = (day) => {
    const days = (Date.parse(day) - Date.now()) / 86400000;
    const [unit, length] = ages.find(([, length]) => Math.abs(days) >= length) || ages[ages.length - 1];
    return words.format(Math.trunc(days / length), unit);
  };
  const list = document.getElementById("list");
  if (!list) return;
  const form = document.querySelector("form");
  const [search, count, none] = ["q", "count", "none"].map((id) => document.getElementById(id));
  const selects = ["d", "a", "s"].map((id) => document.getElementById(id));
  const order = document.getElementById("o");
  // All that is sorted and filtered by is read from the text once: it is there for everybody.
  const units = {KiB: 1, MiB: 1024, GiB: 1048576};
  const size = (text) => parseFloat(text) * (units[text.split(" ")[1]] || 0);
  const items = Array.from(list.children, (item) => {
    const [published, built] = item.getElementsByTagName("time");
    const [button] = item.getElementsByClassName("button");
    // A short word is in some checksum by chance: one is found by its beginning only.
    const sums = Array.from(item.getElementsByClassName("sum"));
    const text = sums.reduce((rest, sum) => rest.replace(sum.textContent, ""), item.textContent);
    return {
      item,
      text: text.toLowerCase(),
      sums: sums.map((sum) => sum.firstElementChild.textContent),
      d: item.dataset.d,
      a: item.getElementsByClassName("arch")[0].textContent,
      s: Array.from(item.getElementsByClassName("badge"), (badge) => badge.textContent),
      published: published.textContent,
      built: built.textContent,
      size: button ? size(button.firstChild.data) : 0,
    };
  });
  const before = (a, b) => (a < b ? -1 : Number(a > b));
  const orders = {
    published: (a, b) => before(b.published, a.published),
    built: (a, b) => before(a.built, b.built),
    size: (a, b) => b.size - a.size,
  };
  const sort = () => {
    const sorted = order.value in orders ? items.toSorted(orders[order.value]) : items;
    list.append(...sorted.map(({item}) => item));
  };
  const filter = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    let first = true;
    for (const item of list.children) {
      const of = known.get(item);
      const has = (word) => of.text.includes(word) || of.sums.some((sum) => sum.startsWith(word));
      const fits = wanted.every(has) &&
        selects.every((select) => !select.value || [of[select.id]].flat().includes(select.value));
      item.hidden = !fits;
      item.classList.toggle("first", fits && first);
      if (fits) { shown += 1; first = false; }
    }
    const all = `${items.length} image${items.length === 1 ? "" : "s"}`;
    count.textContent = shown === items.length ? all : `${shown} of ${all}`;
    none.hidden = shown > 0;
  };
  const known = new Map(items.map((each) => [each.item, each]));
  const fields = [search, ...selects, order];
  const remember = () => {
    const state = new URLSearchParams(fields.filter((f) => f.value).map((f) => [f.id, f.value]));
    history.replaceState(null, "", state.size ? `#?${state}` : location.pathname + location.search);
  };
  if (location.hash.startsWith("#?")) {
    for (const [id, value] of new URLSearchParams(location.hash.slice(2))) {
      const field = fields.find((each) => each.id === id);
      if (field) field.value = value;
    }
  }
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target === order) sort();
    filter();
    remember();
  });
  if (order.value) sort();
  filter();
  const withAge = (entries, observer) => {
    for (const {isIntersecting, target} of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      const [published, built] = target.getElementsByTagName("time");
      built.parentNode.prepend(`${age(published.textContent)}; `);
    }
  };
  const observer = new IntersectionObserver(withAge, {rootMargin: "400px"});
  for (const {item} of items) observer.observe(item);
})();
