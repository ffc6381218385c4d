// Sends COUNT track calls and one of each other call with @segment/analytics-node. Environment: URL, KEY, COUNT.
const { Analytics } = require("@segment/analytics-node");

const count = Number(process.env.COUNT);
const analytics = new Analytics({ writeKey: process.env.KEY, host: process.env.URL, flushInterval: 50 });
analytics.on("error", (error) => {
  console.error(error);
  process.exitCode = 1;
});

analytics.identify({ userId: "u-1", traits: { plan: "pro", name: "李雷" } });
analytics.page({ userId: "u-1", category: "Shop", name: "Home", properties: { url: "https://shop.example/" } });
analytics.screen({ userId: "u-1", name: "Start" });
analytics.group({ userId: "u-1", groupId: "acme", traits: { size: 3 } });
analytics.alias({ userId: "u-1", previousId: "a-1" });
for (let number = 0; number < count; number += 1) {
  analytics.track({ anonymousId: "a-1", event: "Item Seen", properties: { number } });
}
analytics.closeAndFlush({ timeout: 60_000 });
