// The page with HARPO's knobs in a browser, without a server and without a network; faults as lines on the standard output.
//
//   node knobs.mjs PAGE MODULES CHROMIUM
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [file, modules, executablePath] = process.argv.slice(2)
const require = createRequire(join(modules, 'node_modules', 'x.js'))
const { chromium } = require('playwright-core')
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] })
const page = await browser.newPage({ viewport: { width: 390, height: 844 }, offline: true })
const expect = (isSo, what) => {
  if (!isSo) console.log(what)
}
page.on('pageerror', (error) => console.log(`error: ${error.message}`))
await page.goto(pathToFileURL(file).href)

const PARTS = ['bars', 'lines', 'contribution', 'factors', 'share', 'said']
const SAID = 400 // Milliseconds after which the sentence has followed
async function seen() {
  await page.waitForTimeout(SAID)
  return page.evaluate((parts) => {
    const texts = parts.map((name) => [name, document.querySelector(`[data-part="${name}"]`).innerHTML])
    return Object.fromEntries(texts)
  }, PARTS)
}
const same = (a, b, parts) => parts.filter((name) => a[name] === b[name])
const field = (label) => page.getByLabel(label, { exact: true })

const first = await seen()
for (const [name, text] of Object.entries(first)) expect(text.length > 20, `nothing is drawn in ${name}`)

const group = page.getByRole('group', { name: 'Task C' })
await group.getByLabel('Dead groups').fill('5')
const moved = await seen()
expect(!same(first, moved, ['bars', 'lines', 'contribution', 'factors']).length, 'a slider leaves a part as it was')
expect((await group.locator('output').last().textContent()) === '5 of 20', 'the value beside the slider')

await group.getByLabel('Dead groups').press('ArrowRight')
expect((await group.locator('output').last().textContent()) === '6 of 20', 'an arrow key')
expect(!same(moved, await seen(), ['bars', 'lines']).length, 'an arrow key leaves a picture as it was')

await field('Form of HARPO').selectOption('released')
expect(await field('Clamp the factors').isChecked(), 'the released form has clamps')
expect((await seen()).said.includes('released form'), 'the sentence names the form')
await field('Task C before step 41').selectOption('absent')
await field('Step to look at').fill('10')
expect((await seen()).share.includes('absent'), 'task C is absent at step 10')

await page.getByRole('button', { name: 'Start again' }).click()
const again = await seen()
expect(same(first, again, PARTS).length === PARTS.length, 'the reset leaves something changed')
await browser.close()
