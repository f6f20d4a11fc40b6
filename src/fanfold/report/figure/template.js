// The markup inside <fanfold-figure>.

import {guide, slider} from 'fanfold/guided';
import {BRIGHTER} from 'fanfold/pictures';

const CONTROLS = {
    layer: 'Layers shown', strength: 'Strength', snr: 'SNR', sparsity: 'Sparsity',
    lam: 'λ of (F)ISTA', mismatch: 'Mismatch of A', gain: 'Unknown gain',
};

export const template = style => `<div class="figure">${guide(style)}
  <div class="body">
    <div class="pictures">
      <div class="top"><h2>Error after each layer</h2><div class="plot" data-part="plot" role="img" aria-label="Curves"></div></div>
      <div class="control picked"><label for="pick">The estimate of</label><select id="pick" data-part="pick"></select></div>
      <div data-part="spiked"><div><canvas data-part="spikes" role="img" aria-label="Spikes"></canvas></div>
        <p class="quiet">Circles are the true entries, sticks the estimate at the last layer shown, of the first draw.
          <span class="words"></span></p></div>
      <div data-part="pictured" class="hidden"><div class="control picked" data-part="scene-control"><label for="scene">Which one</label><select id="scene" data-part="scene"></select></div>
        <div class="shown">
          <figure><canvas data-part="truth" role="img" aria-label="The truth"></canvas><figcaption><b>truth</b></figcaption></figure>
          <figure><canvas data-part="estimate" role="img" aria-label="The estimate"></canvas><figcaption><b>estimate</b>, <span data-part="shown-db"></span></figcaption></figure>
          <figure><canvas data-part="error" role="img" aria-label="The error"></canvas><figcaption><b>error</b>, ${BRIGHTER} times as bright</figcaption></figure>
        </div><p class="quiet words"></p></div>
      <p class="unseen" data-part="said" role="status"></p>
    </div>
    <div class="controls">
      <fieldset class="curves" data-part="curves"><legend>Error at the last layer shown</legend></fieldset>
      ${Object.entries(CONTROLS).map(slider).join('')}
      <div class="control" data-part="preset-control"><label for="preset">Sizes</label><select id="preset" data-part="preset"></select></div>
      <div class="row"><button data-part="play">Play the layers</button><button data-part="again">Back to the start</button></div>
      <p class="quiet" data-part="note">Networks were trained at 20 dB and 10 of 100 not zero. OAMP is told the prior and the noise; the unfolded
        one started from a wrong prior and reads the noise off each sample. The limit is that of state evolution. Curves are means over 64 draws, whose chance moves all of them by about a dB, past the limit too.</p>
    </div>
  </div></div>`;
