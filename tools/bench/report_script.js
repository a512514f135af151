'use strict';
(function () {
  // ---- all rows: sorting and filtering
  const table = document.getElementById('rows'), body = table.tBodies[0];
  const all = Array.from(body.rows), form = document.querySelector('.filter');
  const heads = Array.from(table.tHead.rows[0].cells);

  function value(row, i) {
    const cell = row.cells[i], number = cell.dataset.v;
    return number === undefined ? cell.textContent.trim() : Number(number);
  }

  // Cells without a value come last, whichever way.
  function sort(i, down) {
    const numeric = heads[i].classList.contains('num');
    const known = all.filter(row => !numeric || row.cells[i].dataset.v !== undefined);
    const unknown = all.filter(row => !known.includes(row));
    known.sort(function (a, b) {
      const x = value(a, i), y = value(b, i);
      const order = numeric ? x - y : x.localeCompare(y, 'en', {numeric: true});
      return down ? -order : order;
    });
    body.append(...known, ...unknown);
    heads.forEach(head => head.removeAttribute('aria-sort'));
    heads[i].setAttribute('aria-sort', down ? 'descending' : 'ascending');
  }

  heads.forEach(function (head, i) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener('click', function () {
      const now = head.getAttribute('aria-sort');
      sort(i, now ? now === 'ascending' : head.classList.contains('num'));
    });
  });

  function filter() {
    const words = form.querySelector('input').value.toLowerCase().split(/\s+/);
    const device = form.elements.device.value, status = form.elements.status.value;
    let shown = 0;
    all.forEach(function (row) {
      const text = row.textContent.toLowerCase();
      const fits = words.every(word => text.includes(word)) &&
        (device === '' || row.dataset.device === device) &&
        (status === '' || row.dataset.status === status);
      row.hidden = !fits;
      shown += fits;
    });
    form.querySelector('output').textContent = shown + ' of ' + all.length + ' rows';
  }

  form.addEventListener('input', filter);
  form.addEventListener('submit', event => event.preventDefault());
  document.querySelectorAll('.filter, .with-script').forEach(part => { part.hidden = false; });
  filter();

  // ---- marks: their title at once, under a finger too
  const tip = document.createElement('div');
  tip.className = 'tip';
  document.body.append(tip);
  document.querySelectorAll('.mark').forEach(function (mark) {
    const title = mark.querySelector('title');
    mark.dataset.tip = title.textContent;
    mark.setAttribute('aria-label', title.textContent);
    title.remove();
  });

  function show(event) {
    const mark = event.target.closest('.mark');
    tip.textContent = mark ? mark.dataset.tip : '';
    if (!mark)
      return;
    const box = mark.getBoundingClientRect(), left = box.right + 10;
    tip.style.left = Math.max(4, Math.min(left, innerWidth - tip.offsetWidth - 4)) + 'px';
    tip.style.top = Math.max(4, Math.min(box.bottom + 8, innerHeight - tip.offsetHeight - 4)) + 'px';
  }

  document.addEventListener('pointerover', show);
  document.addEventListener('scroll', () => { tip.textContent = ''; }, {passive: true});

  // ---- a device of a legend: the others step back
  document.querySelectorAll('.legend [data-d]').forEach(function (entry) {
    const section = entry.closest('section');
    const charts = section.querySelectorAll('.plot svg');
    entry.addEventListener('pointerenter', function () {
      charts.forEach(function (chart) {
        chart.classList.add('dim');
        chart.querySelectorAll('.' + entry.dataset.d).forEach(e => e.classList.add('lit'));
      });
    });
    entry.addEventListener('pointerleave', function () {
      charts.forEach(function (chart) {
        chart.classList.remove('dim');
        chart.querySelectorAll('.lit').forEach(e => e.classList.remove('lit'));
      });
    });
  });
}());
