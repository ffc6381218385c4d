// Draws a table of times and numbers as a chart. The table is the truth and stays for those who cannot see the chart.
(function () {
  "use strict";

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function numbers(row, index) {
    var cell = row.querySelectorAll("td")[index];
    return cell ? Number(cell.dataset.v) : null;
  }

  function draw(place) {
    var rows = Array.from(document.getElementById(place.dataset.plot).querySelectorAll("tbody tr"));
    if (!rows.length) { return; }
    var names = rows.map(function (row) { return row.querySelector("th").textContent; });
    var texts = rows.map(function (row) {
      return Array.from(row.querySelectorAll("td")).map(function (cell) { return cell.textContent; });
    });
    var hasBefore = Boolean(place.dataset.before) && texts[0].length > 1;
    var data = [
      rows.map(function (row) { return Number(row.dataset.t); }),
      rows.map(function (row) { return numbers(row, 0); })
    ];
    if (hasBefore) { data.push(rows.map(function (row) { return numbers(row, 1); })); }

    var language = place.dataset.language === "en" ? "en-GB" : place.dataset.language, // as the pages write dates
       zone = place.dataset.zone, money = place.dataset.money;
    var form = { notation: "compact", maximumFractionDigits: 1 };
    if (money) { form.style = "currency"; form.currency = money; form.currencyDisplay = "narrowSymbol"; }
    var short;
    try { short = new Intl.NumberFormat(language, form); } catch (error) {
      short = new Intl.NumberFormat(language, { notation: "compact" });
    }
    var step = rows.length > 1 ? data[0][1] - data[0][0] : 86400;
    function dateForm(options) {
      options.timeZone = zone;
      return new Intl.DateTimeFormat(language, options);
    }
    var hourForm = dateForm({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    var dayForm = dateForm({ day: "numeric", month: "short" });
    var monthForm = dateForm({ month: "short", year: "numeric" });
    var span = data[0][data[0].length - 1] - data[0][0];
    var axisForm = span <= 2 * 86400 ? hourForm : span <= 400 * 86400 && step < 20 * 86400 ? dayForm : monthForm;

    var tip = document.createElement("div");
    tip.className = "plot-tip";
    tip.hidden = true;

    function line(text, strong) {
      var element = document.createElement(strong ? "strong" : "span");
      element.textContent = text;
      return element;
    }

    function moved(plot) {
      var at = plot.cursor.idx;
      tip.hidden = at == null;
      if (at == null) { return; }
      tip.replaceChildren(line(names[at], true), line(place.dataset.now + ": " + texts[at][0]));
      if (hasBefore) {
        tip.append(document.createElement("br"), line(place.dataset.before + ": " + texts[at][1]));
      }
      var x = plot.valToPos(data[0][at], "x") + plot.bbox.left / devicePixelRatio;
      var isRight = x > place.clientWidth / 2;
      tip.style.left = isRight ? "auto" : x + 12 + "px";
      tip.style.right = isRight ? place.clientWidth - x + 12 + "px" : "auto";
      tip.style.top = "8px";
    }

    function zoomed(plot) {
      if (plot.select.width < 8 || !place.dataset.zoom) { return; }
      function day(pixel) {
        var at = plot.posToIdx(pixel);
        return new Intl.DateTimeFormat("en-CA", { timeZone: zone }).format(data[0][at] * 1000);
      }
      var from = day(plot.select.left), to = day(plot.select.left + plot.select.width);
      window.location.assign(place.dataset.zoom.replace("FROM", from).replace("TO", to));
    }

    function options() {
      var accent = css("--accent"), quiet = css("--ink-3");
      var series = [
        {},
        {
          stroke: accent, width: 2, fill: accent + "1c", points: { show: rows.length < 3, size: 7, fill: accent }
        }
      ];
      if (hasBefore) { series.push({ stroke: quiet, width: 1.5, dash: [5, 5], points: { show: false } }); }
      return {
        width: place.clientWidth,
        height: place.clientHeight,
        padding: [12, 22, 0, 0],
        tzDate: function (at) { return uPlot.tzDate(new Date(at * 1000), zone); },
        legend: { show: false },
        cursor: { y: false, points: { size: 8, fill: accent, stroke: css("--surface"), width: 2 },
                  drag: { x: Boolean(place.dataset.zoom), y: false, setScale: false } },
        scales: { x: { time: true }, y: { range: function (plot, low, high) {
          return [Math.min(0, low), high > 0 ? high * 1.08 : 1];
        } } },
        axes: [
          { stroke: quiet, font: "12px system-ui, sans-serif", size: 34, gap: 8, space: 80,
            grid: { show: false }, ticks: { show: false },
            values: function (plot, splits) {
              return splits.map(function (at) { return axisForm.format(at * 1000); });
            } },
          { stroke: quiet, font: "12px system-ui, sans-serif", size: 64, gap: 8, ticks: { show: false },
            grid: { stroke: css("--line"), width: 1 },
            values: function (plot, splits) {
              return splits.map(function (value) {
                return !money && value !== Math.round(value) ? "" : short.format(value);
              });
            } }
        ],
        series: series,
        hooks: { setCursor: [moved], setSelect: [zoomed] }
      };
    }

    var plot;
    function render() {
      if (plot) { plot.destroy(); }
      place.replaceChildren();
      plot = new uPlot(options(), data, place);
      place.append(tip);
    }
    render();
    new ResizeObserver(function () {
      plot.setSize({ width: place.clientWidth, height: place.clientHeight });
    }).observe(place);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  }

  document.querySelectorAll("[data-plot]").forEach(draw);
})();
